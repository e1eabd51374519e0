//! Doing a few things at the same time.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use parking_lot::Mutex;

use super::RegistryError;

/// Blobs on their way at once.
const AT_ONCE: usize = 3;

/// Does `work` for all of `items`, a few at a time; gives the results in the same order. The first
/// failure raises the flag that `work` is given, and is what is returned: what fails after it fails
/// because of it.
pub(super) fn each<T: Sync, R: Send>(
    items: &[T],
    work: &(dyn Fn(&T, &AtomicBool) -> Result<R, RegistryError> + Sync),
) -> Result<Vec<R>, RegistryError> {
    let stop = AtomicBool::new(false);
    let failure = Mutex::new(None);
    let done: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let next = Mutex::new(items.iter().enumerate());
    let one_by_one = || {
        while !stop.load(Ordering::Relaxed) {
            let Some((at, item)) = next.lock().next() else {
                return;
            };
            match work(item, &stop) {
                Ok(result) => {
                    if let Some(slot) = done.lock().get_mut(at) {
                        *slot = Some(result);
                    }
                }
                Err(error) => {
                    if !stop.swap(true, Ordering::Relaxed) {
                        *failure.lock() = Some(error);
                    }
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        for n in 1..AT_ONCE.min(items.len()) {
            let started = thread::Builder::new()
                .name(format!("blob-{n}"))
                .spawn_scoped(scope, one_by_one);
            if let Err(error) = started {
                tracing::warn!(%error, "fewer blobs are moved at once");
                break;
            }
        }
        one_by_one();
    });
    if let Some(error) = failure.into_inner() {
        return Err(error);
    }
    let missing = || RegistryError::invalid("the image", "not all of its blobs were moved");
    let done = done.into_inner().into_iter();
    done.map(|r| r.ok_or_else(missing)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_the_first_failure_stops_the_rest() {
        let items: Vec<u32> = (0..50).collect();
        assert_eq!(each(&items, &|n, _| Ok(n * 2)).unwrap()[49], 98);
        let begun = std::sync::atomic::AtomicUsize::new(0);
        let failed = each(&items, &|n, stop| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *n == 1 {
                return Err(RegistryError::Cancelled);
            }
            while !stop.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            Ok(())
        });
        assert!(matches!(failed, Err(RegistryError::Cancelled)));
        assert!(begun.into_inner() <= AT_ONCE);
    }
}
