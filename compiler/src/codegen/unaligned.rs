//! Weights that may stay where a file has them, at any address: those that only machine code reads, element by element.
//! A table of a hundred megabytes of which a run reads a few rows is then neither copied nor read.

use rustc_hash::FxHashSet;
use strang_runtime::program::{Argument, Base, Function, Program, Step};

/// The numbers of the weights of a program that may lie at any address. `handed` are the buffers in which
/// machine code hands addresses to kernels of the runtime, which want elements aligned.
pub fn unaligned(program: &Program, mut handed: FxHashSet<u32>) -> Vec<u32> {
    visit(program, &program.body, &mut handed);
    let numbers = handed.iter().filter_map(|buffer| match program.buffers.get(*buffer as usize)?.base {
        Base::Weights(number) => Some(number),
        _ => None,
    });
    let aligned: FxHashSet<u32> = numbers.collect();
    (0..program.weights.len() as u32).filter(|number| !aligned.contains(number)).collect()
}

/// Adds the buffers that anything else than generated kernels reads.
fn visit(program: &Program, steps: &[Step], read: &mut FxHashSet<u32>) {
    let is_generated =
        |function: u32| matches!(program.functions.get(function as usize), Some(Function::Generated { .. }));
    for step in steps {
        match step {
            // The addresses of generated kernels are their arguments too; those are told apart where code is emitted.
            Step::Kernel(kernel) if is_generated(kernel.function) => {}
            Step::Kernel(kernel) => read.extend(kernel.arguments.iter().filter_map(|argument| match argument {
                Argument::Address(address) => Some(address.buffer),
                Argument::Size(_) => None,
            })),
            Step::Repeat { condition, body, .. } => {
                read.extend(condition.iter().map(|address| address.buffer));
                visit(program, body, read);
            }
            Step::If { condition, then, otherwise } => {
                read.insert(condition.buffer);
                visit(program, then, read);
                visit(program, otherwise, read);
            }
            Step::Host { operands, results, .. } => {
                read.extend(operands.iter().chain(results).map(|(address, _)| address.buffer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        codegen::{Target, generate},
        plan::{PlanOptions, plan},
    };
    use memmap2::MmapMut;
    use std::{collections::BTreeMap, sync::Arc};
    use strang_ir::{ElementType, Tensor, text};

    /// How many weights of a circuit with a table of 4 x 8 floats at an odd address may stay there.
    fn left(source: &str) -> usize {
        let (mut module, verified) = text::parse_verified(&format!("ncd 0.1 \"t\"\n{source}"), "test").unwrap();
        let mut map = MmapMut::map_anon(4 * 8 * 4 + 1).unwrap();
        map.fill(1);
        let map = Arc::new(map.make_read_only().unwrap());
        let length = map.len();
        module.parameters[0].data = Some(Tensor::from_mapped(ElementType::F32, &[4, 8], map, 1..length).unwrap());
        let options = PlanOptions { representative: BTreeMap::new(), checks: verified.checks };
        let plan = plan(&module, &options).unwrap();
        generate(&plan, &Target::host().unwrap()).unwrap().unaligned.len()
    }

    #[test]
    fn tables_stay_where_machine_code_alone_reads_them() {
        let rows = "axis n = 3 axis v = 4 axis d = 8 param @t: f32[v, d]
fn @f(%i: i64[n]) -> f32[n, d] {
  %r = gather @t[{v}, d], %i[n] -> [n, d]";
        assert_eq!(left(&format!("{rows}\n  return %r\n}}")), 1);
        assert_eq!(left(&format!("{rows}\n  %s = map $0 * 2.0 + 1.0 : %r[n, d] -> [n, d]\n  return %s\n}}")), 1);
        // The strip function of exp is given an address in the table.
        assert_eq!(
            left(
                "axis v = 4 axis d = 8 param @t: f32[v, d]
fn @f(%x: f32[v, d]) -> f32[v, d] {
  %s = map exp : @t[v, d] -> [v, d]
  %r = map add : %s[v, d], %x[v, d] -> [v, d]
  return %r
}"
            ),
            0
        );
    }
}
