//! Imports one layer into a store and says how long that took:
//! `cargo run --release -p pellicle-store --example import -- STORE FILE`.

use std::{env, fs::File, path::Path, time::Instant};

use pellicle_store::{
    Store,
    import::{ImportOptions, import_layer},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1);
    let (Some(store), Some(file)) = (args.next(), args.next()) else {
        return Err("usage: import STORE FILE".into());
    };
    let store = Store::open(Path::new(&store))?;
    let begin = Instant::now();
    let options = ImportOptions::default();
    let layer = import_layer(&store, File::open(file)?, &options, &())?;
    println!(
        "{} entries, {} bytes of content, {:.3} s",
        layer.entries,
        layer.content_bytes,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}
