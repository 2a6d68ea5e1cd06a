//! Live ranges of buffers: which steps touch them; and removal of those that none does.

use super::kernel::{Body, Image, Plan, PlanStep};
use strang_runtime::program::{Address, Argument, Base, Buffer};

/// Sets the live range of every buffer. Steps are numbered depth first; a buffer that a repeat touches lives through all
/// of it, since the next iteration may read what this one wrote.
pub fn set_live_ranges(plan: &mut Plan) {
    for buffer in &mut plan.buffers {
        buffer.live = (u32::MAX, 0);
    }
    let mut number = 0;
    let body = std::mem::take(&mut plan.body);
    walk(&body, &mut plan.buffers, &mut number);
    plan.body = body;
    for buffer in &mut plan.buffers {
        if buffer.live.0 > buffer.live.1 {
            buffer.live = (0, 0);
        }
    }
}

fn walk(steps: &[PlanStep], buffers: &mut [Buffer], number: &mut u32) {
    for step in steps {
        match step {
            PlanStep::Kernel(kernel) => {
                let image = match &kernel.body {
                    Body::Bands(bands) => Some(bands.image.buffer),
                    _ => None,
                };
                let pointers = kernel.pointers.iter().filter(|pointer| Some(pointer.buffer) != image);
                pointers.for_each(|pointer| touch(buffers, pointer, (*number, *number)));
                if let Body::Builtin { arguments, .. } = &kernel.body {
                    for argument in arguments {
                        if let Argument::Address(address) = argument {
                            touch(buffers, address, (*number, *number));
                        }
                    }
                }
                *number += 1;
            }
            PlanStep::Host { operands, results, .. } => {
                operands.iter().chain(results).for_each(|(address, _)| touch(buffers, address, (*number, *number)));
                *number += 1;
            }
            PlanStep::Repeat { condition, body, .. } => {
                let first = *number;
                walk(body, buffers, number);
                let last = number.saturating_sub(1).max(first);
                // A buffer written late in one iteration may be read early in the next.
                for buffer in buffers.iter_mut() {
                    if buffer.live.0 <= last && buffer.live.1 >= first && buffer.live.0 <= buffer.live.1 {
                        buffer.live = (buffer.live.0.min(first), buffer.live.1.max(last));
                    }
                }
                if let Some(condition) = condition {
                    touch(buffers, condition, (first, last));
                }
            }
            PlanStep::If { condition, then, otherwise } => {
                touch(buffers, condition, (*number, *number));
                walk(then, buffers, number);
                walk(otherwise, buffers, number);
            }
        }
    }
}

fn touch(buffers: &mut [Buffer], address: &Address, range: (u32, u32)) {
    let live = &mut buffers[address.buffer as usize].live;
    *live = (live.0.min(range.0), live.1.max(range.1));
}

/// Drops buffers that no step touches (weights that were packed, mostly) and the data behind them, and renumbers the rest.
/// Inputs and outputs stay.
pub fn drop_unused(plan: &mut Plan) {
    let mut used = vec![false; plan.buffers.len()];
    for (position, buffer) in plan.buffers.iter().enumerate() {
        used[position] = matches!(buffer.base, Base::Input(_) | Base::Output(_) | Base::State(_));
    }
    visit_addresses(&mut plan.body, &mut |address| used[address.buffer as usize] = true);
    let mut weights = Vec::new();
    let mut buffers = Vec::new();
    let mut places = vec![0; plan.buffers.len()];
    for (position, mut buffer) in std::mem::take(&mut plan.buffers).into_iter().enumerate() {
        if !used[position] {
            continue;
        }
        if let Base::Weights(tensor) = buffer.base {
            weights.push(plan.weights[tensor as usize].clone());
            buffer.base = Base::Weights(weights.len() as u32 - 1);
        }
        places[position] = buffers.len() as u32;
        buffers.push(buffer);
    }
    visit_addresses(&mut plan.body, &mut |address| address.buffer = places[address.buffer as usize]);
    visit_images(&mut plan.body, &mut |image| image.buffer = places[image.buffer as usize]);
    plan.buffers = buffers;
    plan.weights = weights;
}

/// Calls `visit` with every image that is computed by bands.
pub(super) fn visit_images(steps: &mut [PlanStep], visit: &mut dyn FnMut(&mut Image)) {
    for step in steps {
        match step {
            PlanStep::Kernel(kernel) => {
                if let Body::Bands(bands) = &mut kernel.body {
                    visit(&mut bands.image);
                }
            }
            PlanStep::Repeat { body, .. } => visit_images(body, visit),
            PlanStep::If { then, otherwise, .. } => {
                visit_images(then, visit);
                visit_images(otherwise, visit);
            }
            PlanStep::Host { .. } => {}
        }
    }
}

/// Calls `visit` with every address that a step names.
pub(super) fn visit_addresses(steps: &mut [PlanStep], visit: &mut dyn FnMut(&mut Address)) {
    for step in steps {
        match step {
            PlanStep::Kernel(kernel) => {
                kernel.pointers.iter_mut().for_each(&mut *visit);
                if let Body::Builtin { arguments, .. } = &mut kernel.body {
                    for argument in arguments {
                        if let Argument::Address(address) = argument {
                            visit(address);
                        }
                    }
                }
            }
            PlanStep::Repeat { condition, body, .. } => {
                condition.iter_mut().for_each(&mut *visit);
                visit_addresses(body, visit);
            }
            PlanStep::If { condition, then, otherwise } => {
                visit(condition);
                visit_addresses(then, visit);
                visit_addresses(otherwise, visit);
            }
            PlanStep::Host { operands, results, .. } => {
                operands.iter_mut().chain(results).for_each(|(address, _)| visit(address));
            }
        }
    }
}
