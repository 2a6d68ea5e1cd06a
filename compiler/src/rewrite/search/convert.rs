//! A window of a circuit as an e-graph: one term a function of a map, views absorbed into what reads them.

use super::key::Interface;
use crate::rewrite::egraph::{
    Facts, Graph, Knowledge, Read, Term,
    build::{self, nameless},
};
use egg::Id;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_ir::{ElementType, Function, IndexMap, Node, Op, ScalarExpr, Shared, Value};

/// An e-graph of a window.
pub struct Converted {
    /// The e-graph.
    pub graph: Graph,
    /// The classes of the window's results.
    pub results: Vec<Id>,
}

/// Converts a window; `parameters` is what is known of those of its interface.
pub fn convert(
    function: &Function,
    nodes: &[NodeIndex],
    (interface, parameters): (&Interface, Vec<Facts>),
) -> Converted {
    let externals = interface.externals.iter();
    let externals =
        externals.map(|value| Facts::value(function.element_of(*value), function.shape_of(*value))).collect();
    let knowledge = Knowledge { externals, parameters, origin: u32::MAX, fuel: usize::MAX, ..Knowledge::default() };
    let mut converter = Converter { graph: Graph::new(knowledge), values: FxHashMap::default() };
    for (place, value) in interface.externals.iter().enumerate() {
        let id = converter.graph.add(Term::External(place as u32));
        converter.values.insert(*value, id);
    }
    let numbers: FxHashMap<u32, u32> =
        interface.parameters.iter().enumerate().map(|(place, number)| (*number, place as u32)).collect();
    for (place, index) in nodes.iter().enumerate() {
        let operands: Vec<Id> =
            function.operands(*index).into_iter().map(|v| converter.operand(function, &numbers, v)).collect();
        converter.graph.analysis.origin = place as u32;
        converter.node(*index, &function.graph[*index], &operands);
        converter.graph.analysis.origin = u32::MAX;
    }
    let results = interface.results.iter().map(|value| converter.values[value]).collect();
    let mut graph = converter.graph;
    graph.rebuild();
    Converted { graph, results }
}

struct Converter {
    graph: Graph,
    values: FxHashMap<Value, Id>,
}

impl Converter {
    fn operand(&mut self, function: &Function, parameters: &FxHashMap<u32, u32>, value: Value) -> Id {
        match function.graph[value.node].op {
            Op::Param(number) => self.graph.add(Term::Parameter(parameters[&number])),
            Op::Const(literal) => self.graph.add(Term::Constant(literal)),
            _ => self.values[&value],
        }
    }

    fn node(&mut self, index: NodeIndex, node: &Node, operands: &[Id]) {
        let reads = || node.maps.iter().zip(operands).map(|(map, value)| Read { value: *value, map: map.clone() });
        let id = match &node.op {
            Op::Map(expression) => {
                // Each function of the expression is over the variables that it depends on; a view may hide which.
                let reads: Vec<Read> = reads().map(|read| build::absorbed(&self.graph, node, read)).collect();
                self.map(node, expression, &reads)
            }
            _ => build::add(&mut self.graph, node, reads().collect()),
        };
        if node.outputs.len() == 1 {
            self.values.insert(index.into(), id);
            return;
        }
        for port in 0..node.outputs.len() as u32 {
            let part = self.graph.add(Term::Project(port, [id]));
            self.values.insert(Value { node: index, port }, part);
        }
    }

    /// A map, its outermost function over the whole output.
    fn map(&mut self, node: &Node, expression: &ScalarExpr, operands: &[Read]) -> Id {
        let element = node.outputs[0].element;
        let frame = nameless(Op::View, node.variables.clone(), element, node.outputs[0].variables.clone());
        match self.parts(node, expression, operands) {
            Some((function, reads)) => build::map(&mut self.graph, &frame, function, element, reads),
            None => {
                let read = self.leaf(node, expression, operands);
                build::view(&mut self.graph, &frame, read)
            }
        }
    }

    /// The outermost function of an expression and the reads of its arguments; `None` for leaves.
    fn parts(&mut self, node: &Node, expression: &ScalarExpr, operands: &[Read]) -> Option<(ScalarExpr, Vec<Read>)> {
        let mut inner = |expression: &ScalarExpr| self.inner(node, expression, operands);
        let operand = ScalarExpr::Operand;
        Some(match expression {
            ScalarExpr::Unary(function, a) => (ScalarExpr::unary_map(*function), vec![inner(a)]),
            ScalarExpr::Binary(function, a, b) => (ScalarExpr::binary_map(*function), vec![inner(a), inner(b)]),
            ScalarExpr::Select(a, b, c) => {
                (ScalarExpr::select(operand(0), operand(1), operand(2)), vec![inner(a), inner(b), inner(c)])
            }
            ScalarExpr::Cast(element, a) => (ScalarExpr::cast(*element, operand(0)), vec![inner(a)]),
            _ => return None,
        })
    }

    fn leaf(&mut self, node: &Node, expression: &ScalarExpr, operands: &[Read]) -> Read {
        match expression {
            ScalarExpr::Operand(slot) => operands[*slot as usize].clone(),
            ScalarExpr::Literal(literal) => Read::number(build::number(&mut self.graph, *literal)),
            ScalarExpr::Index(variable) => {
                let own = vec![node.variables[*variable as usize].clone()];
                let position = nameless(Op::Map(ScalarExpr::Index(0)), own.into(), ElementType::I64, vec![0]);
                let value = build::add(&mut self.graph, &position, Vec::new());
                Read { value, map: IndexMap::of_variables([*variable]) }
            }
            ScalarExpr::Size(_) => {
                let size = nameless(Op::Map(expression.clone()), Shared::default(), ElementType::I64, Vec::new());
                Read::number(build::add(&mut self.graph, &size, Vec::new()))
            }
            _ => unreachable!("functions are taken apart before"),
        }
    }

    /// A part of an expression, over the variables that it depends on.
    fn inner(&mut self, node: &Node, expression: &ScalarExpr, operands: &[Read]) -> Read {
        let Some((function, mut reads)) = self.parts(node, expression, operands) else {
            return self.leaf(node, expression, operands);
        };
        let mut mentioned = vec![false; node.variables.len()];
        for read in &reads {
            read.map.visit_variables(&mut |variable| mentioned[variable as usize] = true);
        }
        let kept: Vec<u32> = (0..node.variables.len() as u32).filter(|v| mentioned[*v as usize]).collect();
        let place = |variable: u32| kept.iter().position(|v| *v == variable).unwrap_or_default() as u32;
        for read in &mut reads {
            read.map = read.map.renumbered(&place);
        }
        let elements: Vec<ElementType> = reads.iter().map(|read| self.graph[read.value].data.element()).collect();
        let element = function.element(&elements).unwrap_or(ElementType::Bool);
        let variables = kept.iter().map(|v| node.variables[*v as usize].clone()).collect();
        let frame = nameless(Op::View, variables, element, (0..kept.len() as u32).collect());
        let value = build::map(&mut self.graph, &frame, function, element, reads);
        Read { value, map: IndexMap::of_variables(kept) }
    }
}
