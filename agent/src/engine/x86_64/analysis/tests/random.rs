//! Bytes that are no code: nothing panics, and what is answered holds.

use super::*;

mod analysis {
    pub(super) use super::super::super::*;
}

#[path = "../../../../../fuzz/exercise.rs"]
mod exercise;

/// Runs; each takes some ten microseconds.
const RUNS: u32 = 3_000;

/// Marsaglia's xorshift64*: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn arbitrary_bytes_are_analysed_and_the_answers_hold() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..RUNS {
        let bytes = (random.next() % 600) as usize;
        // Short branches and the bytes of the interesting instructions, more often than chance gives them.
        let common = [0xeb, 0x74, 0x75, 0xe8, 0xff, 0xe0, 0x48, 0x8d, 0x63, 0xc3, 0xcc, 0x90, 0xf0, 0xe2, 0x0f, 0x05];
        let input: Vec<u8> = (0..bytes)
            .map(|_| match random.next() {
                byte if byte >> 62 == 0 => common[(byte & 15) as usize],
                byte if byte >> 62 == 1 => (byte & 31) as u8,
                byte => byte as u8,
            })
            .collect();
        exercise::exercise(&input);
    }
}

#[test]
fn a_chain_of_overlapping_readings_takes_linear_time() {
    // Branches into the middle of each other, over and over: jmp +1 bytes read as `eb ff`, `ff c0` and so on.
    let mut chain = Vec::new();
    while chain.len() < 1 << 20 {
        chain.extend_from_slice(&[0xeb, 0xff, 0xc0, 0x74, 0xfd, 0x75, 0xfc]);
    }
    let function = Told::default().analyse(&chain);
    assert!(function.targets().count() > 1 << 17);
    let far = AT + chain.len() as u64;
    assert!((AT..far).step_by(4096).all(|address| function.site(address).reason().is_some_and(|why| !why.is_empty())));
}
