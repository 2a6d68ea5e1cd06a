//! Wires as eight-bit integers: the head sends `q = round(x / s)` and `s = max |x| / 127`, the tail computes `q s`.

use std::sync::Arc;
use strang_ir::{
    Axis, ElementType, Function, IndexMap, Literal, Module, Node, Op, Output, ScalarExpr, Shared, Source, Value,
    circuit::distinct_variables,
    op::Monoid,
    scalar::{Binary, Unary},
};

/// The largest code.
const LARGEST: f64 = 127.;

/// Has the results of the head that are arrays of floats cross as integers with a scale each.
pub fn quantise(head: &mut Module, tail: &mut Module) {
    let (head, tail) = (&mut head.functions[0], &mut tail.functions[0]);
    let wires: Vec<(Arc<str>, Value)> = head.output_names.iter().cloned().zip(head.outputs.iter().copied()).collect();
    (head.outputs, head.output_names) = (Vec::new(), Vec::new());
    for (name, wire) in wires {
        let axes: Vec<Axis> = head.graph[wire.node].axes(wire.port).into_iter().cloned().collect();
        let element = head.element_of(wire);
        if !element.is_float() || axes.is_empty() {
            head.outputs.push(wire);
            head.output_names.push(name);
            continue;
        }
        let (scale, codes): (Arc<str>, Arc<str>) = (format!("{name}_scale").into(), format!("{name}_codes").into());
        let frame = Frame { axes: &axes, element };
        let [codes_value, scale_value] = frame.encode(head, wire, [&codes, &scale]);
        head.outputs.extend([codes_value, scale_value]);
        head.output_names.extend([codes.clone(), scale.clone()]);
        frame.decode(tail, &name, [codes, scale]);
    }
}

/// An array that crosses.
struct Frame<'a> {
    axes: &'a [Axis],
    element: ElementType,
}

impl Frame<'_> {
    /// A node over the array's axes. The first operand is read whole, others are numbers; `whole` says whether the result
    /// is an array or a number too.
    fn node(&self, op: Op, operands: usize, element: ElementType, name: &Arc<str>, whole: bool) -> Node {
        let variables = distinct_variables(self.axes);
        let all = 0..variables.len() as u32;
        let mut maps = vec![IndexMap::of_variables(all.clone())];
        maps.resize(operands, IndexMap::of_variables([]));
        let output = Output { name: name.clone(), element, variables: if whole { all.collect() } else { Vec::new() } };
        Node {
            op,
            variables: variables.into(),
            maps: maps.into(),
            outputs: vec![output],
            source: Source::None,
            block: None,
        }
    }

    fn number(&self, value: f64) -> ScalarExpr {
        ScalarExpr::Literal(Literal::from_f64(self.element, value))
    }

    /// The codes and the scale.
    fn encode(&self, head: &mut Function, wire: Value, [codes, scale]: [&Arc<str>; 2]) -> [Value; 2] {
        let x = ScalarExpr::Operand(0);
        let size = self.node(Op::Map(ScalarExpr::unary_map(Unary::Absolute)), 1, self.element, codes, true);
        let size = head.add(size, &[wire]);
        let most = self.node(Op::Reduce(Monoid::Maximum), 1, self.element, scale, false);
        let most = head.add(most, &[size.into()]);
        let is_some = ScalarExpr::binary(Binary::Greater, x.clone(), self.number(0.));
        let share = ScalarExpr::binary(Binary::Divide, x.clone(), self.number(LARGEST));
        let mut node = Node {
            variables: Shared::default(),
            maps: vec![IndexMap::of_variables([])].into(),
            ..self.node(Op::Map(ScalarExpr::select(is_some, share, self.number(1.))), 1, self.element, scale, false)
        };
        node.outputs[0].variables.clear();
        let scale = head.add(node, &[most.into()]);
        let quotient = ScalarExpr::binary(Binary::Divide, x, ScalarExpr::Operand(1));
        let code = ScalarExpr::cast(ElementType::I8, ScalarExpr::unary(Unary::Round, quotient));
        let codes = head.add(self.node(Op::Map(code), 2, ElementType::I8, codes, true), &[wire, scale.into()]);
        [codes.into(), scale.into()]
    }

    /// Replaces the input of a name by one computed from the codes and the scale.
    fn decode(&self, tail: &mut Function, name: &str, [codes, scale]: [Arc<str>; 2]) {
        let Some(place) = tail.inputs.iter().position(|input| *tail.graph[*input].outputs[0].name == *name) else {
            return;
        };
        let old = tail.inputs[place];
        let codes = tail.add_input(codes, ElementType::I8, self.axes);
        let scale = tail.add_input(scale, self.element, &[]);
        let value = ScalarExpr::cast(self.element, ScalarExpr::Operand(0));
        let product = ScalarExpr::binary(Binary::Multiply, value, ScalarExpr::Operand(1));
        let name: Arc<str> = name.into();
        let node = self.node(Op::Map(product), 2, self.element, &name, true);
        let value = tail.add(node, &[codes.into(), scale.into()]);
        tail.replace(old.into(), value.into());
        tail.graph.remove_node(old);
        // The two stand where the one stood, and every input knows its position.
        tail.inputs.truncate(tail.inputs.len() - 2);
        tail.inputs.splice(place..=place, [codes, scale]);
        for (position, input) in tail.inputs.iter().enumerate() {
            tail.graph[*input].op = Op::Input(position as u32);
        }
    }
}
