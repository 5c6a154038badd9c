//! The index against a map, with hashes that collide.

use proptest::prelude::*;
use rookery_base::{Hash32, Height};

use crate::tree::index::Index;

#[derive(Debug, Clone)]
enum Op {
    Insert(u8),
    Remove(prop::sample::Index),
    Truncate(prop::sample::Index),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => any::<u8>().prop_map(Op::Insert),
        10 => any::<prop::sample::Index>().prop_map(Op::Remove),
        1 => any::<prop::sample::Index>().prop_map(Op::Truncate),
    ]
}

/// Only the last bytes are mixed, so hashes of one kind have one print, and crowd one neighbourhood.
fn hash(kind: u8) -> Hash32 {
    let mut hash = [0; 32];
    hash[31] = kind;
    Hash32(hash)
}

proptest! {
    #[test]
    fn an_index_is_a_map(key in any::<u64>(), ops in prop::collection::vec(op(), 1..1_500)) {
        let mut index = Index::new(key, 0);
        let mut map: Vec<(u8, Height)> = Vec::new();
        let mut height = 0;
        for op in ops {
            match op {
                Op::Insert(kind) => {
                    index.insert(&hash(kind), height);
                    map.push((kind, height));
                    height += 1;
                }
                Op::Remove(at) if !map.is_empty() => {
                    let (kind, height) = map.remove(at.index(map.len()));
                    index.remove(&hash(kind), height);
                    index.remove(&hash(kind), height);
                }
                Op::Truncate(at) if !map.is_empty() => {
                    let above = map[at.index(map.len())].1;
                    map.retain(|entry| entry.1 <= above);
                    index.truncate(above);
                }
                Op::Remove(_) | Op::Truncate(_) => {}
            }
            prop_assert_eq!(index.len(), map.len());
        }
        for kind in 0..=u8::MAX {
            let mut found: Vec<_> = index.candidates(&hash(kind)).collect();
            found.sort_unstable();
            let expected: Vec<_> = map.iter().filter(|entry| entry.0 == kind).map(|entry| entry.1).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
