//! `Einsum`: what many operands contract to is computed pair by pair, and is what the equation says.

use super::models::{self, FLOAT, encode, graph, model, node, port};
use rustc_hash::FxHashMap;
use strang_compiler::import::onnx::{ImportOptions, load_bytes};
use strang_ir::{
    Op, Tensor,
    interpret::{Arithmetic, interpret},
    random::random_tensor,
};
use strang_runtime::ElementType;

/// What an equation says, by the sum over all positions of its letters.
fn expected(text: &str, shapes: &[Vec<usize>], values: &[Vec<f64>]) -> Vec<f64> {
    let (terms, output) = text.split_once("->").unwrap();
    let terms: Vec<Vec<char>> = terms.split(',').map(|term| term.chars().collect()).collect();
    let output: Vec<char> = output.chars().collect();
    let mut sizes: FxHashMap<char, usize> = FxHashMap::default();
    for (term, shape) in terms.iter().zip(shapes) {
        for (letter, size) in term.iter().zip(shape) {
            let known = sizes.entry(*letter).or_insert(1);
            *known = (*known).max(*size);
        }
    }
    let mut letters: Vec<char> = sizes.keys().copied().collect();
    letters.sort_unstable();
    let place = |term: &[char], shape: &[usize], at: &FxHashMap<char, usize>| {
        term.iter().zip(shape).fold(0, |place, (letter, size)| place * size + at[letter].min(size - 1))
    };
    let shape: Vec<usize> = output.iter().map(|letter| sizes[letter]).collect();
    let mut sums = vec![0.; shape.iter().product()];
    for number in 0..letters.iter().map(|letter| sizes[letter]).product() {
        let mut rest = number;
        let mut at = FxHashMap::default();
        for letter in &letters {
            at.insert(*letter, rest % sizes[letter]);
            rest /= sizes[letter];
        }
        let factors =
            terms.iter().zip(shapes).zip(values).map(|((term, shape), values)| values[place(term, shape, &at)]);
        sums[place(&output, &shape, &at)] += factors.product::<f64>();
    }
    sums
}

#[test]
fn many_operands_are_contracted_pair_by_pair() {
    let cases: &[(&str, &[&[usize]])] = &[
        ("ab,bc,cd->ad", &[&[3, 5], &[5, 4], &[4, 2]]),
        ("teh,ehd,te->td", &[&[4, 3, 5], &[3, 5, 6], &[4, 3]]),
        ("a,b,c->cab", &[&[2], &[3], &[4]]),
        ("ii,i,ij->j", &[&[3, 3], &[3], &[3, 4]]),
        ("a,a,a->", &[&[7], &[7], &[7]]),
        ("ab,ac,ad,bcd->a", &[&[2, 3], &[2, 4], &[2, 5], &[3, 4, 5]]),
        // Axes of one position are repeated, whichever operand has the others.
        ("ab,ab,bc->ac", &[&[3, 1], &[3, 4], &[4, 2]]),
        ("ab,ab,ab->ab", &[&[1, 1], &[3, 1], &[1, 4]]),
    ];
    for (text, shapes) in cases {
        let shapes: Vec<Vec<usize>> = shapes.iter().map(|shape| shape.to_vec()).collect();
        let names: Vec<String> = (0..shapes.len()).map(|place| format!("x{place}")).collect();
        let dims = |shape: &[usize]| shape.iter().map(|size| *size as i64).collect::<Vec<_>>();
        let ports: Vec<_> = names.iter().zip(&shapes).map(|(name, shape)| port(name, FLOAT, &dims(shape))).collect();
        let einsum = node("Einsum", &names.join(" "), "y", &[models::text("equation", text)]);
        let module = load_bytes(&encode(&model(graph(&ports, &[], &[einsum]), 13)), None, &ImportOptions::default());
        let module = module.unwrap();
        let values: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(place, shape)| random_tensor(ElementType::F32, shape, false, place as u64))
            .collect();
        let found = interpret(&module, &values, Arithmetic::Wide).unwrap()[0].to_f64();
        let numbers: Vec<Vec<f64>> = values.iter().map(Tensor::to_f64).collect();
        let expected = expected(text, &shapes, &numbers);
        assert_eq!(found.len(), expected.len(), "{text}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{text}: {found} for {expected}");
        }
        let most = module.entry().graph.node_weights().filter(|node| matches!(node.op, Op::Dot { .. } | Op::Map(_)));
        assert_eq!(most.map(|node| node.maps.len()).max(), Some(2), "{text}");
    }
}
