//! A node as a statement.

use super::{FunctionPrinter, index::Variables, names, quote, scalar, write_to};
use crate::{Atom, IndexExpr, IndexMap, Node, Op, Value, text::lower::infer};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_runtime::{ElementType, Size};

impl FunctionPrinter<'_> {
    /// The statement of a node, in canonical form, without indentation or newline.
    pub(super) fn print_node(&self, out: &mut String, index: NodeIndex) {
        let node = self.function.graph[index].canonical();
        let results: Vec<String> =
            (0..node.outputs.len()).map(|port| self.value(Value { node: index, port: port as u32 })).collect();
        write_to(out, format_args!("{} = ", results.join(", ")));
        if let Op::Const(number) = node.op {
            return write_to(out, format_args!("const {} {number}", number.element));
        }
        NodePrinter::new(self, index, &node).print(out);
    }
}

struct NodePrinter<'a> {
    printer: &'a FunctionPrinter<'a>,
    node: &'a Node,
    operands: Vec<Value>,
    /// The types of the operands.
    elements: Vec<ElementType>,
    /// The names of the variables: the axis, with primes for a further variable over it.
    names: Vec<String>,
    /// The variables of the results, in order of first appearance.
    outputs: Vec<u32>,
    /// For each variable whether it is in no result.
    contracted: Vec<bool>,
}

impl<'a> NodePrinter<'a> {
    fn new(printer: &'a FunctionPrinter<'a>, index: NodeIndex, node: &'a Node) -> Self {
        let operands = printer.function.operands(index);
        let element = |value: &Value| {
            let operand = printer.function.graph.node_weight(value.node);
            operand.and_then(|node| node.outputs.get(value.port as usize)).map(|output| output.element)
        };
        let elements = operands.iter().map(|value| element(value).unwrap_or(ElementType::F32)).collect();
        let mut primes: FxHashMap<&str, usize> = FxHashMap::default();
        let mut names = Vec::with_capacity(node.variables.len());
        for variable in &node.variables {
            let axis = printer.names.axis(&variable.axis);
            let count = primes.entry(axis).or_insert(0);
            names.push(format!("{axis}{}", "'".repeat(*count)));
            *count += 1;
        }
        let mut contracted = vec![true; node.variables.len()];
        let mut outputs = Vec::new();
        for variable in node.outputs.iter().flat_map(|output| &output.variables) {
            if let Some(contracted @ true) = contracted.get_mut(*variable as usize) {
                *contracted = false;
                outputs.push(*variable);
            }
        }
        NodePrinter { printer, node, operands, elements, names, outputs, contracted }
    }

    fn print(&self, out: &mut String) {
        let types = self.result_types();
        let header = self.header(types.first().copied().flatten()) + &self.order();
        *out += &header;
        if !self.operands.is_empty() {
            *out += if header == self.node.op.name() { " " } else { " : " };
        }
        let reads = self.named_reads();
        for slot in 0..self.operands.len() {
            if slot > 0 {
                *out += ", ";
            }
            self.print_operand(out, slot, &reads);
        }
        if let Op::Scatter { target, .. } = &self.node.op {
            let target: Vec<String> = target.iter().map(|expression| self.bare().expression(expression)).collect();
            write_to(out, format_args!(" at [{}]", target.join(", ")));
        }
        *out += " -> ";
        for (port, output) in self.node.outputs.iter().enumerate() {
            if port > 0 {
                *out += ", ";
            }
            if let Some(element) = types[port] {
                write_to(out, format_args!("{element}"));
            }
            let braced = |variable| self.is_normalised(variable) || self.is_kept(variable);
            let variables = Variables { names: &self.names, braced: &braced };
            let names: Vec<String> = output.variables.iter().map(|position| variables.variable(*position)).collect();
            write_to(out, format_args!("[{}]", names.join(", ")));
        }
    }

    /// The types of the results that must be written.
    fn result_types(&self) -> Vec<Option<ElementType>> {
        let function = |id: crate::FunctionId| self.printer.module.function(id);
        let returned = |id| {
            function(id)
                .map_or(vec![], |function| function.outputs.iter().map(|value| element_of(function, *value)).collect())
        };
        let inferred = infer::results(&self.node.op, &self.elements, self.node.outputs.len(), &returned);
        let outputs = self.node.outputs.iter();
        outputs.zip(inferred).map(|(output, inferred)| Some(output.element).filter(|e| Some(*e) != inferred)).collect()
    }

    fn is_normalised(&self, variable: u32) -> bool {
        match &self.node.op {
            Op::Softmax { over, .. } | Op::Norm { over, .. } => over.contains(&variable),
            _ => false,
        }
    }

    fn is_kept(&self, variable: u32) -> bool {
        matches!(self.node.op, Op::Sort { kept, .. } if kept == variable)
    }

    fn is_contracted(&self, variable: u32) -> bool {
        self.contracted.get(variable as usize).copied().unwrap_or(false)
    }

    /// Variables without braces.
    fn bare(&self) -> Variables<'_> {
        Variables { names: &self.names, braced: &|_| false }
    }

    fn name(&self, variable: u32) -> String {
        self.bare().variable(variable)
    }

    /// The operation and what stands beside it; `expected` is the type that the result is printed with.
    fn header(&self, expected: Option<ElementType>) -> String {
        let function = |id: &crate::FunctionId| self.printer.names.function(id.0 as usize);
        let flag = |set: bool, text: &'static str| if set { text } else { "" };
        match &self.node.op {
            Op::Dot { accumulator } => {
                let default = self.elements.first().map(|element| element.accumulator());
                match default == Some(*accumulator) {
                    true => "dot".to_owned(),
                    false => format!("dot acc={accumulator}"),
                }
            }
            Op::Map(expression) => {
                let scalars = scalar::Scalars { operands: &self.elements, variables: &self.names };
                format!("map {}", scalars.header(expression, expected))
            }
            Op::Reduce(monoid) => format!("reduce {}", monoid.name()),
            Op::ArgReduce { largest, last } => {
                format!("argreduce {}{}", if *largest { "max" } else { "min" }, flag(*last, " last"))
            }
            Op::Softmax { log, .. } => format!("softmax{}", flag(*log, " log")),
            Op::Norm { kind, epsilon, .. } => {
                format!("norm {}(eps = {})", kind.name(), scalar::literal(*epsilon, Some(ElementType::F64)))
            }
            Op::Concat { along, offsets } => self.concat(*along, offsets),
            Op::Scatter { reduction: Some(monoid), .. } => format!("scatter {}", monoid.name()),
            Op::Scan { body, along, reverse, states } => {
                let states = if *states > 0 { format!(" states={states}") } else { String::new() };
                format!("scan {} along {}{}{states}", function(body), self.name(*along), flag(*reverse, " reverse"))
            }
            Op::Sort { descending, .. } => {
                format!("sort {}", if *descending { "descending" } else { "ascending" })
            }
            Op::If { then, otherwise } => format!("if then {} else {}", function(then), function(otherwise)),
            Op::Loop { body } => format!("loop {}", function(body)),
            Op::Call(called) => format!("call {}", function(called)),
            Op::Custom { name, attributes } => {
                let pair =
                    |(key, value): (&String, &String)| format!("{} = {}", names::word_or_string(key), quote(value));
                let pairs: Vec<String> = attributes.iter().map(pair).collect();
                let pairs = if pairs.is_empty() { String::new() } else { format!(" {{{}}}", pairs.join(", ")) };
                format!("custom {}{pairs}", quote(name))
            }
            Op::Scatter { reduction: None, .. }
            | Op::View
            | Op::Gather
            | Op::Input(_)
            | Op::Param(_)
            | Op::Const(_) => self.node.op.name().to_owned(),
        }
    }

    /// Offsets print where the operands do not simply follow each other.
    fn concat(&self, along: u32, offsets: &[Size]) -> String {
        let header = format!("concat along {}", self.name(along));
        let mut expected = vec![Size::ZERO];
        for (value, map) in self.operands.iter().zip(&self.node.maps) {
            let axis = map.exprs.iter().position(|expression| expression.mentions(along));
            let shape = self.printer.shape(*value);
            let Some(size) = axis.and_then(|axis| shape.get(axis).cloned()) else { break };
            let end = size + expected.last().unwrap_or(&Size::ZERO);
            expected.push(end);
        }
        if expected == offsets && offsets.len() == self.operands.len() + 1 {
            return header;
        }
        let offsets: Vec<String> = offsets.iter().map(ToString::to_string).collect();
        format!("{header} at ({})", offsets.join(", "))
    }

    /// ` order=(...)`, where the parser would number the variables in another way.
    fn order(&self) -> String {
        let count = self.node.variables.len() as u32;
        let mut appearance = self.outputs.clone();
        let mut seen: Vec<bool> = self.contracted.iter().map(|contracted| !contracted).collect();
        let mut visit = |variable: u32| {
            if let Some(seen @ false) = seen.get_mut(variable as usize) {
                *seen = true;
                appearance.push(variable);
            }
        };
        self.node.maps.iter().for_each(|map| map.visit_variables(&mut visit));
        match &self.node.op {
            Op::Scatter { target, .. } => target.iter().for_each(|expression| expression.visit_variables(&mut visit)),
            Op::Map(expression) => expression.visit(&mut |part| {
                if let crate::ScalarExpr::Index(variable) = part {
                    visit(*variable);
                }
            }),
            Op::Concat { along, .. } | Op::Scan { along, .. } => visit(*along),
            _ => {}
        }
        if appearance.iter().copied().eq(0..count) {
            return String::new();
        }
        let outputs = self.outputs.len() as u32;
        let from = if self.outputs.iter().copied().eq(0..outputs) { outputs } else { 0 };
        let names: Vec<String> = (from..count).map(|variable| self.name(variable)).collect();
        format!(" order=({})", names.join(", "))
    }

    /// For each axis of a gather's first operand, the name that stands for the index read there; empty where indices are
    /// read in another way than one after the other, each alone.
    fn named_reads(&self) -> Vec<Option<String>> {
        let (Op::Gather, Some(map), Some(table)) = (&self.node.op, self.node.maps.first(), self.operands.first())
        else {
            return vec![];
        };
        let axes = self.printer.axis_names(*table);
        let mut next = 0;
        let mut names = Vec::with_capacity(map.exprs.len());
        for (axis, expression) in map.exprs.iter().enumerate() {
            if !mentions_read(expression) {
                names.push(None);
                continue;
            }
            next += 1;
            match axes.get(axis) {
                Some(name) if *expression == IndexExpr::atom(Atom::Read(next)) && !self.names.contains(name) => {
                    names.push(Some(name.clone()))
                }
                _ => return vec![],
            }
        }
        names
    }

    fn print_operand(&self, out: &mut String, slot: usize, reads: &[Option<String>]) {
        let braced = |variable| self.is_contracted(variable) || (slot == 0 && self.is_normalised(variable));
        let variables = Variables { names: &self.names, braced: &braced };
        let empty = IndexMap::default();
        let map = self.node.maps.get(slot).unwrap_or(&empty);
        let place = |(axis, expression): (usize, &IndexExpr)| match reads.get(axis) {
            Some(Some(name)) if slot == 0 => format!("{{{name}}}"),
            _ => variables.expression(expression),
        };
        let places: Vec<String> = map.exprs.iter().enumerate().map(place).collect();
        write_to(out, format_args!("{}[{}]", self.printer.value(self.operands[slot]), places.join(", ")));
        for (position, condition) in map.conditions.iter().enumerate() {
            *out += if position == 0 { " where " } else { " and " };
            *out += &self.bare().condition(condition);
        }
        if let Some(fill) = map.fill {
            *out += " else ";
            *out += &scalar::literal(fill, self.elements.get(slot).copied());
        }
    }
}

fn mentions_read(expression: &IndexExpr) -> bool {
    expression.terms().iter().any(|(atom, _)| match atom {
        Atom::Read(_) => true,
        Atom::Variable(_) => false,
        Atom::FloorDiv(inner, _) | Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) | Atom::Table(_, inner) => {
            mentions_read(inner)
        }
    })
}

fn element_of(function: &crate::Function, value: Value) -> ElementType {
    let node = function.graph.node_weight(value.node);
    node.and_then(|node| node.outputs.get(value.port as usize)).map_or(ElementType::F32, |output| output.element)
}

impl FunctionPrinter<'_> {
    fn axes_of(&self, value: Value) -> Vec<&crate::Axis> {
        let Some(node) = self.function.graph.node_weight(value.node) else { return vec![] };
        let Some(output) = node.outputs.get(value.port as usize) else { return vec![] };
        output.variables.iter().filter_map(|v| node.variables.get(*v as usize)).map(|v| &v.axis).collect()
    }

    fn axis_names(&self, value: Value) -> Vec<String> {
        self.axes_of(value).into_iter().map(|axis| self.names.axis(axis).to_owned()).collect()
    }

    fn shape(&self, value: Value) -> Vec<Size> {
        self.axes_of(value).into_iter().map(|axis| axis.size.clone()).collect()
    }
}
