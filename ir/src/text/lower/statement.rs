//! One statement to one node: operands and variables are resolved, numbered and checked here; what the header says is
//! lowered in `op`.

use super::{Body, Declarations, Result, index, infer, literal, op, scalar};
use crate::{
    Atom, Axis, IndexExpr, IndexMap, Node, Op, Output, Source, Value, Variable,
    text::{
        ast::{Index, IndexKind, Name, OpTree, Operand, Statement},
        error::{Complaint, Span},
        parse::axis_name,
    },
};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use strang_runtime::ElementType;

/// What the lowering of a header can ask about its statement.
pub(super) struct Context<'a> {
    pub declarations: &'a Declarations,
    pub statement: &'a Statement,
    /// The types of the operands.
    pub elements: &'a [ElementType],
    /// The axes of the operands.
    pub axes: &'a [Vec<Axis>],
    pub variables: &'a Variables<'a>,
}

/// The variables of a statement, numbered.
pub(super) struct Variables<'a> {
    declarations: &'a Declarations,
    names: Vec<&'a str>,
    axes: Vec<Axis>,
    positions: FxHashMap<&'a str, u32>,
    /// How many are output variables; they come first.
    outputs: usize,
}

/// Adds the node of a statement and names its results.
pub(crate) fn lower_statement(
    declarations: &Declarations,
    body: &mut Body,
    statement: &Statement,
) -> Result<NodeIndex> {
    let mut values: Vec<Value> = Vec::with_capacity(statement.operands.len());
    let (mut elements, mut axes) = (Vec::new(), Vec::new());
    for operand in &statement.operands {
        let value = body.value(declarations, &operand.reference)?;
        let node = &body.function.graph[value.node];
        let element = node.outputs[value.port as usize].element;
        let operand_axes: Vec<Axis> = node.axes(value.port).into_iter().cloned().collect();
        check_rank(operand, element, &operand_axes)?;
        values.push(value);
        elements.push(element);
        axes.push(operand_axes);
    }
    let reads = gather_reads(statement);
    let variables = Variables::of(declarations, statement, &reads)?;
    let context = Context { declarations, statement, elements: &elements, axes: &axes, variables: &variables };
    let op = op::lower(&context)?;
    let maps =
        statement.operands.iter().enumerate().map(|(slot, _)| context.map(slot, &reads)).collect::<Result<_>>()?;
    let outputs = context.outputs(&op)?;
    let node = Node {
        op,
        variables: variables
            .names
            .iter()
            .zip(&variables.axes)
            .map(|(name, axis)| Variable::named(*name, axis))
            .collect(),
        maps,
        outputs,
        source: Source::Span { start: statement.span.start, end: statement.span.end },
        block: statement.block.clone(),
    };
    let index = body.function.add(node, &values);
    for (port, name) in statement.names.iter().enumerate() {
        body.define(name, Value { node: index, port: port as u32 })?;
    }
    Ok(index)
}

fn check_rank(operand: &Operand, element: ElementType, axes: &[Axis]) -> Result<()> {
    if operand.places.len() == axes.len() {
        return Ok(());
    }
    let name = &operand.reference.name;
    let sigil = if operand.reference.global { '@' } else { '%' };
    let axes: Vec<String> = axes.iter().map(|axis| format!("{} = {}", axis.name, axis.size)).collect();
    let message = format!(
        "`{sigil}{}` has {} axes, but {} index expressions are given",
        name.text,
        axes.len(),
        operand.places.len()
    );
    Err(Complaint::new(message, operand.span).under(format!("{element}[{}]", axes.join(", "))))
}

/// For each place of a gather's first operand, the index operand that it reads: a braced name that neither the results
/// nor an index operand explain stands for the next one.
fn gather_reads(statement: &Statement) -> Vec<Option<u32>> {
    let (OpTree::Gather, [table, indices @ ..]) = (&statement.op, statement.operands.as_slice()) else { return vec![] };
    let mut explained: FxHashSet<&str> = FxHashSet::default();
    explained.extend(statement.results.iter().flat_map(|result| &result.variables).map(|(name, _)| name.text.as_str()));
    for place in indices.iter().flat_map(|operand| &operand.places) {
        index::visit(place, &mut |name, _, _| {
            explained.insert(name);
        });
    }
    let mut next = 0;
    let read = |place: &Index| match &place.kind {
        IndexKind::Variable(name, true) if !explained.contains(name.as_str()) => {
            next += 1;
            Some(next)
        }
        _ => None,
    };
    table.places.iter().map(read).collect()
}

impl<'a> Variables<'a> {
    fn of(declarations: &'a Declarations, statement: &'a Statement, reads: &[Option<u32>]) -> Result<Self> {
        let mut variables =
            Variables { declarations, names: vec![], axes: vec![], positions: FxHashMap::default(), outputs: 0 };
        variables.add_results(statement)?;
        for (slot, operand) in statement.operands.iter().enumerate() {
            for (axis, place) in operand.places.iter().enumerate() {
                let is_read = slot == 0 && reads.get(axis).copied().flatten().is_some();
                if !is_read {
                    variables.add_place(statement, place)?;
                }
            }
            for part in operand.conditions.iter().flat_map(index::condition_parts) {
                variables.add_index(part)?;
            }
        }
        for target in statement.target.iter().flatten() {
            variables.add_index(target)?;
        }
        match &statement.op {
            OpTree::Map(expression) => {
                let mut names = Vec::new();
                scalar::visit(expression, &mut |name| names.push(name));
                names.into_iter().try_for_each(|name| variables.add(&name.text, name.span))?;
            }
            OpTree::Concat(along, _) | OpTree::Scan { along, .. } => variables.add(&along.text, along.span)?,
            _ => {}
        }
        if let Some((order, span)) = &statement.order {
            variables.reorder(order, *span)?;
        }
        Ok(variables)
    }

    fn add(&mut self, name: &'a str, span: Span) -> Result<()> {
        if !self.positions.contains_key(name) {
            let axis = self.declarations.scope.axis(&Name { text: name.to_owned(), span })?;
            self.positions.insert(name, self.names.len() as u32);
            self.axes.push(Axis::new(axis_name(name), axis.clone()));
            self.names.push(name);
        }
        Ok(())
    }

    fn add_results(&mut self, statement: &'a Statement) -> Result<()> {
        for result in &statement.results {
            let mut seen = FxHashSet::default();
            for (name, braced) in &result.variables {
                self.add(&name.text, name.span)?;
                if !seen.insert(name.text.as_str()) {
                    let axis = axis_name(&name.text);
                    return Err(Complaint::new(format!("`{}` stands twice in the result", name.text), name.span)
                        .help(format!("a second variable over the axis `{axis}` is written `{axis}'`")));
                }
                if *braced && !matches!(statement.op, OpTree::Softmax { .. } | OpTree::Norm(..) | OpTree::Sort { .. }) {
                    return Err(Complaint::new("braces in the result mark what is normalised or sorted", name.span)
                        .help(format!("write `{}`", name.text)));
                }
            }
        }
        self.outputs = self.names.len();
        Ok(())
    }

    fn is_output(&self, name: &str) -> bool {
        self.positions.get(name).is_some_and(|position| (*position as usize) < self.outputs)
    }

    /// The variables of an operand's place, with braces where they belong.
    fn add_place(&mut self, statement: &'a Statement, place: &'a Index) -> Result<()> {
        let mut wrong = None;
        let mut names = Vec::new();
        index::visit(place, &mut |name, braced, at| {
            names.push((name, at.span));
            let normalised = || {
                let results = statement.results.iter().flat_map(|result| &result.variables);
                results.into_iter().any(|(result, braced)| *braced && result.text == name)
            };
            let is_output = self.is_output(name);
            if is_output && braced && !normalised() {
                wrong.get_or_insert(
                    Complaint::new(format!("`{name}` is in braces, but also in the result"), at.span)
                        .help(format!("write `{name}`, or leave it out of the result to combine over it")),
                );
            } else if !is_output && !braced {
                wrong.get_or_insert(
                    Complaint::new(format!("`{name}` is not in the result"), at.span)
                        .help(format!("write `{{{name}}}` to combine over it, or add it to the result")),
                );
            }
        });
        for (name, span) in names {
            self.add(name, span)?;
        }
        wrong.map_or(Ok(()), Err)
    }

    fn add_index(&mut self, index: &'a Index) -> Result<()> {
        let mut names = Vec::new();
        index::visit(index, &mut |name, _, at| names.push((name, at.span)));
        names.into_iter().try_for_each(|(name, span)| self.add(name, span))
    }

    /// `order=(...)`: the variables beside those of the result, or all variables.
    fn reorder(&mut self, order: &'a [Name], span: Span) -> Result<()> {
        let mut seen = FxHashSet::default();
        for name in order {
            self.add(&name.text, name.span)?;
            if !seen.insert(name.text.as_str()) {
                return Err(Complaint::new(format!("`{}` stands twice in the order", name.text), name.span));
            }
        }
        let outputs = self.names[..self.outputs].iter().filter(|name| seen.contains(*name)).count();
        let others = order.len() - outputs;
        let complete = others == self.names.len() - self.outputs;
        if !complete || (outputs != 0 && outputs != self.outputs) {
            return Err(Complaint::new("the order does not list every variable", span)
                .help("it lists the variables that are not in the result, or all variables"));
        }
        let old: FxHashMap<&str, Axis> = self.names.iter().copied().zip(self.axes.iter().cloned()).collect();
        let kept = if outputs == 0 { self.outputs } else { 0 };
        self.names.truncate(kept);
        self.names.extend(order.iter().map(|name| name.text.as_str()));
        self.axes = self.names.iter().map(|name| old[name].clone()).collect();
        self.positions = self.names.iter().enumerate().map(|(position, name)| (*name, position as u32)).collect();
        Ok(())
    }

    /// The number of a variable. Every name of the statement was added before this is asked.
    pub fn position(&self, name: &str) -> u32 {
        self.positions[name]
    }

    /// The variables that are not in the result, ascending.
    pub fn contracted(&self, statement: &Statement) -> Vec<u32> {
        let results: FxHashSet<&str> =
            statement.results.iter().flat_map(|result| &result.variables).map(|(name, _)| name.text.as_str()).collect();
        (0..self.names.len() as u32).filter(|position| !results.contains(self.names[*position as usize])).collect()
    }
}

impl Context<'_> {
    /// The number of a variable of the statement.
    pub fn position(&self, name: &str) -> u32 {
        self.variables.position(name)
    }

    /// The variables in braces of the first result, ascending.
    pub fn braced_results(&self) -> Vec<u32> {
        let variables = self.statement.results.first().map_or(&[][..], |result| &result.variables);
        let braced = variables.iter().filter(|(_, braced)| *braced);
        let mut positions: Vec<u32> = braced.map(|(name, _)| self.position(&name.text)).collect();
        positions.sort_unstable();
        positions
    }

    /// How an operand is read.
    fn map(&self, slot: usize, reads: &[Option<u32>]) -> Result<IndexMap> {
        let operand = &self.statement.operands[slot];
        let position = |name: &str| self.position(name);
        let expression = |(axis, place): (usize, &Index)| match reads.get(axis).copied().flatten() {
            Some(read) if slot == 0 => Ok(IndexExpr::atom(Atom::Read(read))),
            _ => index::lower(place, &position),
        };
        let fill = operand.fill.as_ref().or(self.statement.fill.as_ref());
        Ok(IndexMap {
            exprs: operand.places.iter().enumerate().map(expression).collect::<Result<_>>()?,
            conditions: operand
                .conditions
                .iter()
                .map(|condition| index::lower_condition(condition, &position))
                .collect::<Result<_>>()?,
            fill: fill.map(|fill| literal::lower(fill, Some(self.elements[slot]))).transpose()?,
        })
    }

    fn outputs(&self, op: &Op) -> Result<Vec<Output>> {
        let Statement { names, results, span, .. } = self.statement;
        if let Op::Const(literal) = op {
            let [name] = names.as_slice() else {
                return Err(Complaint::new("a constant has one result", *span));
            };
            return Ok(vec![Output { name: name.text.as_str().into(), element: literal.element, variables: vec![] }]);
        }
        if names.len() != results.len() {
            let message = format!("{} results are named, but {} are given", names.len(), results.len());
            return Err(Complaint::new(message, *span));
        }
        let functions: FxHashMap<_, _> = self
            .statement
            .op
            .functions()
            .filter_map(|name| self.declarations.functions.get(&name.text))
            .map(|s| (s.id, s))
            .collect();
        let returned = |id| functions.get(&id).map_or(vec![], |signature| signature.outputs.clone());
        let inferred = infer::results(op, self.elements, results.len(), &returned);
        names
            .iter()
            .zip(results)
            .zip(inferred)
            .map(|((name, result), inferred)| {
                let element = result.element.or(inferred).ok_or_else(|| {
                    Complaint::new("the element type of this result is not known", result.span)
                        .help("write it before the bracket: `-> f32[b, m]`")
                })?;
                let variables = result.variables.iter().map(|(name, _)| self.position(&name.text)).collect();
                Ok(Output { name: name.text.as_str().into(), element, variables })
            })
            .collect()
    }
}
