//! Times, stored once for all series that were sampled together.
//!
//! A track follows one scrape group: its times go to blocks of at most [`BLOCK_TIMES`], and series refer to a position
//! in a block. What comes out of the order of its track has no place here; its series keep it aside.
//!
//! Invariants:
//! - a block's times are ascending and unique, and all of it belongs to one generation (what one flush takes);
//! - a block lives as long as a run refers to it or a track appends to it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::series::Timeline;

/// Times in one block; an hour of 15 s scrapes.
pub(crate) const BLOCK_TIMES: usize = 240;

/// A position in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) block: u32,
    pub(crate) position: u16,
}

/// The blocks of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    slots: Vec<Block>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Block {
    times: Times,
    generation: u32,
    runs: u32,
}

#[derive(Debug)]
enum Times {
    Open(Vec<i64>),
    Closed(Timeline),
    Free,
}

impl Blocks {
    pub(crate) fn times(&self, block: u32) -> &[i64] {
        match &self.slots[block as usize].times {
            Times::Open(times) => times,
            Times::Closed(times) => times,
            Times::Free => &[],
        }
    }

    pub(crate) fn generation(&self, block: u32) -> u32 {
        self.slots[block as usize].generation
    }

    /// Counts one more run of the block.
    pub(crate) fn retain(&mut self, block: u32) {
        self.slots[block as usize].runs += 1;
    }

    /// Counts one run less, and forgets the block with the last one.
    pub(crate) fn release(&mut self, block: u32) {
        let slot = &mut self.slots[block as usize];
        slot.runs -= 1;
        if slot.runs == 0 && matches!(slot.times, Times::Closed(_)) {
            self.forget(block);
        }
    }

    /// Adds a block that is complete already.
    pub(crate) fn add_closed(&mut self, times: Timeline, generation: u32) -> u32 {
        self.add(Block { times: Times::Closed(times), generation, runs: 0 })
    }

    fn add(&mut self, block: Block) -> u32 {
        if let Some(free) = self.free.pop() {
            self.slots[free as usize] = block;
            return free;
        }
        self.slots.push(block);
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 blocks fit in memory")
    }

    fn close(&mut self, block: u32) {
        let slot = &mut self.slots[block as usize];
        if let Times::Open(times) = &slot.times {
            slot.times = Times::Closed(Arc::from(times.as_slice()));
        }
        if slot.runs == 0 {
            self.forget(block);
        }
    }

    fn forget(&mut self, block: u32) {
        self.slots[block as usize].times = Times::Free;
        self.free.push(block);
    }
}

/// The times of one scrape group.
#[derive(Debug, Default)]
pub(crate) struct Track {
    open: Option<u32>,
}

impl Track {
    /// Finds or makes the place of a time; `None` when it comes out of order.
    pub(crate) fn place(&mut self, t: i64, generation: u32, blocks: &mut Blocks) -> Option<Place> {
        if let Some(block) = self.open {
            let slot = &mut blocks.slots[block as usize];
            let Times::Open(times) = &mut slot.times else { unreachable!("a track's block is open") };
            let last = *times.last().expect("a block begins with a time");
            if slot.generation == generation {
                if t <= last {
                    let position = times.binary_search(&t).ok()?;
                    return Some(Place { block, position: position_of(position) });
                }
                if times.len() < BLOCK_TIMES {
                    times.push(t);
                    return Some(Place { block, position: position_of(times.len() - 1) });
                }
            }
            blocks.close(block);
        }
        let block = blocks.add(Block { times: Times::Open(vec![t]), generation, runs: 0 });
        self.open = Some(block);
        Some(Place { block, position: 0 })
    }

    /// Ends the track.
    pub(crate) fn close(&mut self, blocks: &mut Blocks) {
        if let Some(block) = self.open.take() {
            blocks.close(block);
        }
    }
}

fn position_of(index: usize) -> u16 {
    u16::try_from(index).expect("a block has few times")
}

/// Gives the rows of one answer that have equal times one timeline.
#[derive(Debug, Default)]
pub(crate) struct TimelineCache {
    /// By the pieces of blocks (block, first position, end) that the times are made of.
    by_pieces: HashMap<Vec<(u32, u16, u16)>, Timeline>,
    by_content: crate::merge::TimelineInterner,
}

impl TimelineCache {
    /// Returns the times of whole pieces of blocks.
    pub(crate) fn of_pieces(&mut self, pieces: &[(u32, u16, u16)], blocks: &Blocks) -> Timeline {
        if let Some(known) = self.by_pieces.get(pieces) {
            return Arc::clone(known);
        }
        let mut times = Vec::new();
        for (block, start, end) in pieces {
            times.extend_from_slice(&blocks.times(*block)[usize::from(*start)..usize::from(*end)]);
        }
        let timeline = self.of_times(times);
        self.by_pieces.insert(pieces.to_vec(), Arc::clone(&timeline));
        timeline
    }

    pub(crate) fn of_times(&mut self, times: Vec<i64>) -> Timeline {
        self.by_content.intern(&Timeline::from(times))
    }

    /// Forgets where pieces lie: block numbers may mean other blocks from now on.
    pub(crate) fn blocks_changed(&mut self) {
        self.by_pieces.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_have_one_place_and_late_ones_none() {
        let (mut track, mut blocks) = (Track::default(), Blocks::default());
        let first = track.place(10, 1, &mut blocks).expect("the first");
        assert_eq!(track.place(20, 1, &mut blocks), Some(Place { block: first.block, position: 1 }));
        assert_eq!(track.place(10, 1, &mut blocks), Some(first), "a time seen before");
        assert_eq!(track.place(15, 1, &mut blocks), None, "between two times");
        assert_eq!(blocks.times(first.block), [10, 20]);
    }

    #[test]
    fn a_block_ends_when_full_and_with_its_generation() {
        let (mut track, mut blocks) = (Track::default(), Blocks::default());
        let places: Vec<Place> =
            (0..=240).map(|t| track.place(t, 1, &mut blocks).expect("in order")).collect();
        assert_eq!(places[239].position, 239);
        assert_eq!(places[240].position, 0, "the 241st time opens a block");
        let next = track.place(241, 2, &mut blocks).expect("in order");
        assert_eq!(next.position, 0);
        assert_eq!(blocks.generation(next.block), 2);
    }

    #[test]
    fn blocks_without_runs_are_used_again() {
        let (mut track, mut blocks) = (Track::default(), Blocks::default());
        let first = track.place(1, 1, &mut blocks).expect("in order");
        blocks.retain(first.block);
        let second = track.place(2, 2, &mut blocks).expect("in order");
        assert_eq!(blocks.times(first.block), [1], "a run still refers to it");
        blocks.release(first.block);
        track.close(&mut blocks);
        assert!(blocks.times(first.block).is_empty() && blocks.times(second.block).is_empty());
        assert_eq!(blocks.slots.len(), 2);
        track.place(3, 3, &mut blocks);
        track.close(&mut blocks);
        assert_eq!(blocks.slots.len(), 2, "freed blocks are used again");
    }
}
