//! Costs counted by hand.

use super::*;
use crate::{
    Bindings, ElementType, IndexMap, Op, ScalarExpr, Size,
    interpret::tests::{module_of, node},
    scalar::Binary,
};
use ElementType::{F32, I4};

fn at(variables: &[u32]) -> IndexMap {
    IndexMap::of_variables(variables.iter().copied())
}

#[test]
fn a_product_of_symbolic_size() {
    let (b, k, n) = (Size::symbol("b"), Size::from(3), Size::from(5));
    let dot = Op::Dot { accumulator: F32 };
    let dot = node(dot, &[b.clone(), n.clone(), k.clone()], vec![at(&[0, 2]), at(&[2, 1])], F32, &[0, 1]);
    let module = module_of(&[(F32, vec![b, k.clone()]), (F32, vec![k, n])], dot);
    let summary = summary(&module);
    assert_eq!(summary.cost.flops.to_string(), "30*b");
    // Read 12 b and 60 bytes, written 20 b.
    assert_eq!(summary.cost.bytes.to_string(), "32*b + 60");
    assert_eq!(
        summary.to_string(),
        "test\n  parameters  0 arrays, 0 elements, 0 bytes\n  symbols     b\n  operations  1 dot\n  flops       30*b\n  \
         bytes moved 32*b + 60\n"
    );
    let bindings: Bindings = [("b".into(), 2)].into();
    assert_eq!(peak_bytes(module.entry(), &bindings), Ok(24 + 60 + 40));
}

#[test]
fn a_broadcast_operand_is_read_once_and_a_part_in_part() {
    let sizes = [Size::from(10), Size::from(7)];
    let sum = Op::Map(ScalarExpr::binary_map(Binary::Add));
    let map = node(sum, &sizes, vec![at(&[0, 1]), at(&[1])], F32, &[0, 1]);
    let module = module_of(&[(F32, vec![Size::from(10), Size::from(100)]), (F32, vec![Size::from(7)])], map);
    let cost = summary(&module).cost;
    assert_eq!((cost.flops, cost.bytes), (Size::from(70), Size::from(280 + 28 + 280)));
}

#[test]
fn packed_elements_round_up() {
    assert_eq!(bytes_of(I4, &Size::from(5)), Size::from(3));
    assert_eq!(bytes_of(F32, &Size::symbol("n")).to_string(), "4*n");
}
