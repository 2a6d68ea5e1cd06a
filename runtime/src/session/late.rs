//! Weights that are still to be packed when a program is loaded. The first run packs each right before the first step that reads
//! it, in a room where it makes way for later ones: what is run once never has all packed weights in memory, and reads them from
//! a cache. The second run packs all of them and keeps them; it takes longer by that.

use super::plan::{Action, Node, PlanBuffer, PlanCustom, PlanKernel, WordSource};
use crate::{
    Tensor,
    memory::{
        Block,
        arrange::{Request, arrange},
        whole_lines,
    },
    program::Base,
};
use rustc_hash::FxHashMap;
use std::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
};

/// The late weights of a program, which its sessions share.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// In the order in which a run needs them.
    weights: Vec<LateWeight>,
    /// By the number of a weight: its position among them.
    positions: FxHashMap<u32, u32>,
    /// Bytes of a room.
    room: u64,
    /// Bytes of all of them.
    total: u64,
    /// One of the states below.
    state: AtomicU8,
    /// All of them, once they are kept.
    kept: OnceLock<Block>,
}

/// No run has begun.
const NEW: u8 = 0;
/// One has, in a room.
const RUN: u8 = 1;
/// Somebody is packing all weights, or has done so.
const KEPT: u8 = 2;

#[derive(Debug)]
struct LateWeight {
    tensor: Tensor,
    /// The first and last step of the program's body, whatever is in these, that reads it.
    live: (u32, u32),
    /// Where it lies in a room.
    in_room: u64,
    /// Where it lies among all.
    in_kept: u64,
}

impl Late {
    /// Those of a program's weights that are deferred; `None` when their sizes do not fit 64 bits.
    pub(super) fn new(weights: &[Tensor], body: &[Node], reads: &Reads<'_>) -> Option<Late> {
        if !weights.iter().any(Tensor::is_deferred) {
            return Some(Late::default());
        }
        let mut late: Vec<LateWeight> = Vec::new();
        let mut positions = FxHashMap::default();
        for (step, node) in (0u32..).zip(body) {
            reads.each(node, &mut |number| {
                let tensor = &weights[number as usize];
                if tensor.is_deferred() {
                    let position = *positions.entry(number).or_insert_with(|| {
                        late.push(LateWeight { tensor: tensor.clone(), live: (step, step), in_room: 0, in_kept: 0 });
                        late.len() as u32 - 1
                    });
                    late[position as usize].live.1 = step;
                }
            });
        }
        let requests: Vec<Request> =
            late.iter().map(|weight| Request { bytes: weight.tensor.length() as u64, live: weight.live }).collect();
        let arrangement = arrange(&requests)?;
        let mut total = 0u64;
        for ((weight, request), in_room) in late.iter_mut().zip(requests).zip(arrangement.offsets) {
            (weight.in_room, weight.in_kept) = (in_room, total);
            total = total.checked_add(whole_lines(request.bytes)?)?;
        }
        Some(Late { weights: late, positions, room: arrangement.bytes, total, ..Late::default() })
    }

    /// The position of a weight among them; `None` if it is none of them.
    pub(super) fn position(&self, weight: u32) -> Option<u32> {
        self.positions.get(&weight).copied()
    }

    /// A room for a run, if weights are not kept yet and this is not the run that packs all.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn room(&self) -> std::io::Result<Option<Block>> {
        if self.kept.get().is_none() && self.state.load(Ordering::Acquire) != RUN {
            let room = Block::new(self.room)?;
            let _ = self.state.compare_exchange(NEW, RUN, Ordering::AcqRel, Ordering::Relaxed);
            return Ok(Some(room));
        }
        match self.keep()? {
            Some(_) => Ok(None),
            None => Block::new(self.room).map(Some),
        }
    }

    /// All of the weights, packed now if they were not; `None` while somebody else packs them.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn keep(&self) -> std::io::Result<Option<&Block>> {
        if let Some(kept) = self.kept.get() {
            return Ok(Some(kept));
        }
        // Not with a lock: packing may take other tasks of its thread, which may run the same program.
        if self.state.swap(KEPT, Ordering::AcqRel) == KEPT {
            return Ok(None);
        }
        let mut block = Block::lasting(self.total).inspect_err(|_| self.state.store(RUN, Ordering::Release))?;
        let mut room = Tensor::scalar(0u8);
        for LateWeight { tensor, in_kept, .. } in &self.weights {
            tensor.write_to(block.bytes_mut(*in_kept, tensor.length() as u64), &mut room);
        }
        Ok(Some(self.kept.get_or_init(|| block)))
    }

    /// All of the weights, if they are kept.
    pub(super) fn kept(&self) -> Option<&Block> {
        self.kept.get()
    }

    /// The address of one of the weights, in a room or among all.
    pub(super) fn address(&self, position: u32, room: Option<&Block>) -> u64 {
        let weight = &self.weights[position as usize];
        let (block, offset) = match room {
            Some(room) => (Some(room), weight.in_room),
            None => (self.kept.get(), weight.in_kept),
        };
        block.map_or(0, |block| block.addresses().start as u64) + offset
    }

    /// Bytes of all of the weights.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Whether a step of the body is the first that reads one of the weights.
    pub(crate) fn is_first(&self, step: u32) -> bool {
        self.first(step).next().is_some()
    }

    /// Packs the weights that a step of the body is the first to read.
    ///
    /// # Safety
    /// `room` is the address of a room for these weights, and nobody reads or writes what lies there and is not needed any more.
    pub(crate) unsafe fn make(&self, step: u32, room: u64, before: &mut Tensor) {
        for weight in self.first(step) {
            let start = std::ptr::with_exposed_provenance_mut((room + weight.in_room) as usize);
            // SAFETY: the room holds the weight there, and the caller promises that nobody uses that place.
            let bytes = unsafe { std::slice::from_raw_parts_mut(start, weight.tensor.length()) };
            weight.tensor.write_to(bytes, before);
        }
    }

    /// The weights that a step of the body is the first to read.
    fn first(&self, step: u32) -> impl Iterator<Item = &LateWeight> {
        let start = self.weights.partition_point(|weight| weight.live.0 < step);
        self.weights[start..].iter().take_while(move |weight| weight.live.0 == step)
    }
}

/// What the steps of a program read.
pub(super) struct Reads<'plan> {
    pub(super) words: &'plan [WordSource],
    pub(super) buffers: &'plan [PlanBuffer],
    pub(super) kernels: &'plan [PlanKernel],
    pub(super) customs: &'plan [PlanCustom],
}

impl Reads<'_> {
    /// Calls `read` with the weights of everything in a node.
    fn each(&self, node: &Node, read: &mut dyn FnMut(u32)) {
        match &node.action {
            Action::Kernel(kernel) => {
                self.kernels[*kernel as usize].words.clone().for_each(|word| self.word(word, read))
            }
            Action::Custom(custom) => {
                let custom = &self.customs[*custom as usize];
                custom.operands.iter().chain(&custom.results).for_each(|array| self.word(array.word, read));
            }
            // Weights are not filled.
            Action::Fill(..) => {}
            Action::Repeat { condition, body, .. } => {
                condition.iter().for_each(|word| self.word(*word, read));
                body.iter().for_each(|node| self.each(node, read));
            }
            Action::If { condition, then, otherwise } => {
                self.word(*condition, read);
                then.iter().chain(otherwise).for_each(|node| self.each(node, read));
            }
        }
    }

    fn word(&self, word: u32, read: &mut dyn FnMut(u32)) {
        if let WordSource::Address { buffer, .. } = self.words[word as usize]
            && let Base::Weights(number) = self.buffers[buffer as usize].base
        {
            read(number);
        }
    }
}
