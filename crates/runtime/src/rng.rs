//! Randomness forked by label: every user has its own stream, so that one user more does not change what the
//! others draw, and a seed repeats a run.

use rand::SeedableRng;
use rand::rngs::SysRng;
pub use rand_chacha::ChaCha8Rng;

/// Where a node's randomness comes from. ChaCha8: fast, and not predictable from its output.
#[derive(Debug, Clone)]
pub struct RngSource {
    seed: [u8; 32],
}

impl RngSource {
    /// Seeded by the operating system.
    ///
    /// # Panics
    /// When the system gives no randomness: nothing safe can be done without.
    pub fn system() -> Self {
        let mut seed = [0; 32];
        rand::TryRng::try_fill_bytes(&mut SysRng, &mut seed).expect("the system gives randomness");
        Self { seed }
    }

    /// Seeded for simulation. Different nodes of a world take different `node` numbers.
    pub fn seeded(seed: u64, node: u32) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..12].copy_from_slice(&node.to_le_bytes());
        Self { seed: bytes }
    }

    /// The stream of this label. The same label gives the same stream: number labels that repeat.
    pub fn fork(&self, label: &str, number: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(stream_id(label, number));
        rng
    }
}

/// FNV-1a over label and number. Labels are ours, so nobody can choose them to collide.
fn stream_id(label: &str, number: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in label.bytes().chain(number.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_repeat_by_label_and_differ_between_labels_numbers_and_nodes() {
        let draw = |source: &RngSource, label, number| source.fork(label, number).next_u64();
        let a = RngSource::seeded(1, 0);
        assert_eq!(draw(&a, "dial", 0), draw(&RngSource::seeded(1, 0), "dial", 0));
        let others = [draw(&a, "dial", 1), draw(&a, "book", 0), draw(&RngSource::seeded(1, 1), "dial", 0)];
        assert!(others.iter().all(|other| *other != draw(&a, "dial", 0)));
        assert_ne!(draw(&RngSource::system(), "x", 0), draw(&RngSource::system(), "x", 0));
    }
}
