//! The same files in ever more layers.

use super::{Tree, walk};
use crate::{model::Point, setup::Lower};

const DEPTHS: [u32; 5] = [1, 8, 32, 64, 128];

pub(super) fn all() -> Vec<Tree> {
    let tree = |layers: u32| {
        Tree::new(
            format!("depth/{layers}"),
            format!("walk and read 2,000 files that {layers} layers have a part of, fresh mount"),
            Lower::Depth(layers),
            walk::read,
        )
        .point(Point {
            series: "depth".to_owned(),
            x: f64::from(layers),
            unit: "layers".to_owned(),
        })
    };
    DEPTHS.into_iter().map(tree).collect()
}
