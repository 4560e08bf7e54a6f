//! Looks for texts that the parser cannot cope with, for as many seconds as are given: random pieces of the language,
//! cut, doubled and with bytes changed. Ends with a panic that names the text.
//!
//! `cargo run --release -p promql-syntax --example fuzz -- SECONDS`

#[path = "../tests/it/fuzz.rs"]
mod fuzz;

use std::time::{Duration, Instant};

/// A xorshift generator: what is found is found again with the seed that is printed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or(0)
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    let count = random.below(60);
    let mut out = Vec::new();
    for _ in 0..count {
        out.extend_from_slice(fuzz::PIECES[random.below(fuzz::PIECES.len())].as_bytes());
        if random.below(3) == 0 {
            out.push(b' ');
        }
    }
    for _ in 0..random.below(4) {
        if out.is_empty() {
            break;
        }
        let at = random.below(out.len());
        match random.below(3) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out.truncate(at),
            _ => out.extend_from_within(at..),
        }
    }
    out
}

#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "this is a main, for a person")]
fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(10);
    let seed = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15);
    let (mut random, mut count, end) = (Random(seed), 0_u64, Instant::now() + Duration::from_secs(seconds));
    while Instant::now() < end {
        fuzz::check(&text(&mut random));
        count += 1;
    }
    println!("{count} texts, seed {seed}");
}
