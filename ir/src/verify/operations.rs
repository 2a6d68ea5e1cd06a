//! Each operation: how many operands and outputs, which element types, which variables, and that reads stay in range.

use super::{Place, Verifier, infer::infer_element, range::Target};
use crate::{CircuitError, ElementType, Op, Size, error::Mistake, op::Norm};

impl Verifier<'_> {
    /// One node, whose structure is sound.
    pub(super) fn node(&mut self, place: Place) -> Result<(), CircuitError> {
        let node = place.node;
        for variable in &node.variables {
            self.demand(place, variable.size().clone(), || {
                Mistake::Sizes(format!("axis {} has size {}", variable.axis.name, variable.size()))
            })?;
        }
        operand_count(place)?;
        output_count(place)?;
        variables_used(place)?;
        match &node.op {
            Op::Param(position) => self.parameter(place, *position)?,
            Op::Call(_) | Op::If { .. } | Op::Loop { .. } | Op::Scan { .. } => return self.control(place),
            _ => {}
        }
        self.types(place)?;
        for (slot, map) in node.maps.iter().enumerate() {
            let element = operand_elements(place)[slot];
            if let Some(fill) = map.fill.filter(|fill| fill.element != element) {
                return Err(place.types(format!("operand {slot} is {element}, but its fill is {}", fill.element)));
            }
        }
        match &node.op {
            Op::Concat { along, offsets } => self.concat(place, *along, offsets),
            Op::Scatter { target, .. } => self.scatter(place, target),
            Op::Sort { along, kept, .. } => self.sort(place, *along, *kept),
            _ => self.all_maps(place),
        }
    }

    fn all_maps(&mut self, place: Place) -> Result<(), CircuitError> {
        // Without positions nothing is read.
        if place.node.variables.iter().any(|variable| variable.size().is(0)) {
            return Ok(());
        }
        (0..place.node.maps.len()).try_for_each(|slot| self.map(place, slot, &whole(place)))
    }

    fn types(&mut self, place: Place) -> Result<(), CircuitError> {
        let (node, operands) = (place.node, operand_elements(place));
        let found = node.outputs[0].element;
        match &node.op {
            Op::Input(_) | Op::Param(_) | Op::Custom { .. } => Ok(()),
            // The result may be narrower or wider than the operands: it is rounded from the accumulator.
            Op::Dot { accumulator } => {
                infer_element(&node.op, &operands).map_err(|text| place.types(text))?;
                let kind = |element: ElementType| (element.is_float(), element.is_integer());
                if kind(found) != kind(*accumulator) {
                    return Err(place.types(format!("a sum in {accumulator} does not become {found}")));
                }
                Ok(())
            }
            op => {
                let expected = infer_element(op, &operands).map_err(|text| place.types(text))?;
                if expected != found {
                    return Err(place.types(format!("`{}` yields {expected}, not {found}", op.name())));
                }
                Ok(())
            }
        }
    }

    fn parameter(&mut self, place: Place, position: u32) -> Result<(), CircuitError> {
        let parameter = &self.module.parameters[position as usize];
        let (axes, output) = (place.node.axes(0), &place.node.outputs[0]);
        let same = axes.len() == parameter.axes.len()
            && axes.iter().zip(&parameter.axes).all(|(left, right)| left.size == right.size);
        if same && output.element == parameter.element {
            return Ok(());
        }
        let shape: Vec<&Size> = parameter.axes.iter().map(|axis| &axis.size).collect();
        Err(place.sizes(format!(
            "@{} is {}{shape:?}, not {}{:?}",
            parameter.name,
            parameter.element,
            output.element,
            place.node.shape(0)
        )))
    }

    fn concat(&mut self, place: Place, along: u32, offsets: &[Size]) -> Result<(), CircuitError> {
        let node = place.node;
        let variable = &node.variables[along as usize];
        let size = variable.size();
        if offsets.len() != node.maps.len() + 1 {
            let (operands, found) = (node.maps.len(), offsets.len());
            return Err(place.structure(format!("`concat` of {operands} operands has {found} offsets")));
        }
        let mistake =
            || Mistake::Sizes(format!("the parts end at {offsets:?}, but {} has {size} positions", variable.name));
        self.demand_equal(place, &offsets[0], &Size::ZERO, mistake)?;
        self.demand_equal(place, &offsets[node.maps.len()], size, mistake)?;
        for (slot, pair) in offsets.windows(2).enumerate() {
            if node.maps[slot].fill.is_some() {
                return Err(place.structure(format!("operand {slot} of a `concat` is read with a fill")));
            }
            self.demand(place, &pair[1] - &pair[0], mistake)?;
            let empty = (0..node.variables.len() as u32)
                .any(|v| if v == along { (&pair[1] - &pair[0]).is(0) } else { node.size_of(v).is(0) });
            if !empty {
                let (first, last) = (pair[0].clone(), &pair[1] - &Size::ONE);
                let part = move |v: u32| if v == along { (first.clone(), last.clone()) } else { whole(place)(v) };
                self.map(place, slot, &part)?;
            }
        }
        Ok(())
    }

    fn scatter(&mut self, place: Place, target: &[crate::IndexExpr]) -> Result<(), CircuitError> {
        let node = place.node;
        let axes = node.axes(0);
        if target.len() != axes.len() {
            let (expected, found) = (axes.len(), target.len());
            return Err(place.structure(format!("`scatter` into {expected} axes has {found} target expressions")));
        }
        let kept = &node.outputs[0].variables;
        for variable in 0..node.variables.len() as u32 {
            let name = &node.variables[variable as usize].name;
            if !kept.contains(&variable) && node.maps[0].mentions(variable) {
                return Err(
                    place.structure(format!("the base of a `scatter` is read at {name}, which is no axis of it"))
                );
            }
            let iterated = node.maps[1..].iter().any(|map| map.mentions(variable));
            if !iterated && target.iter().any(|expression| expression.mentions(variable)) {
                return Err(place.structure(format!(
                    "the target of a `scatter` depends on {name}, which neither updates nor index operands have"
                )));
            }
        }
        if !kept.iter().any(|variable| node.size_of(*variable).is(0)) {
            self.map(place, 0, &whole(place))?;
        }
        let iterated = |v: u32| node.maps[1..].iter().any(|map| map.mentions(v));
        if (0..node.variables.len() as u32).any(|v| iterated(v) && node.size_of(v).is(0)) {
            return Ok(());
        }
        (1..node.maps.len()).try_for_each(|slot| self.map(place, slot, &whole(place)))?;
        for (axis, (expression, of)) in target.iter().zip(axes).enumerate() {
            self.parts(place, expression, &whole(place))?;
            self.in_range(place, expression, &whole(place), Target { slot: 0, axis, of })?;
        }
        Ok(())
    }

    fn sort(&mut self, place: Place, along: u32, kept: u32) -> Result<(), CircuitError> {
        let node = place.node;
        let name = |variable: u32| &node.variables[variable as usize].name;
        let [values, positions] = node.outputs.as_slice() else {
            return Err(place.structure("`sort` has two outputs: values and positions"));
        };
        if positions.element != ElementType::I64 || values.variables != positions.variables {
            return Err(place.types("the second output of a `sort` is i64 and has the axes of the first"));
        }
        if !values.variables.contains(&kept) || node.contracted() != [along] {
            return Err(place.structure(format!("`sort` along {} yields the axis {}", name(along), name(kept))));
        }
        if node.maps[0].mentions(kept) {
            return Err(place.structure(format!("`sort` reads its operand at {}", name(kept))));
        }
        let (all, some) = (node.size_of(along), node.size_of(kept));
        self.demand(place, &all - &some, || Mistake::Sizes(format!("`sort` keeps {some} of {all} positions")))?;
        self.all_maps(place)
    }
}

/// All positions of the node's variables.
fn whole<'a>(place: Place<'a>) -> impl Fn(u32) -> (Size, Size) + 'a {
    move |variable| (Size::ZERO, place.node.size_of(variable) - Size::ONE)
}

fn operand_elements(place: Place) -> Vec<ElementType> {
    place.function.operands(place.index).into_iter().map(|value| place.function.element_of(value)).collect()
}

fn operand_count(place: Place) -> Result<(), CircuitError> {
    let found = place.node.maps.len();
    let (least, most) = match &place.node.op {
        Op::Input(_) | Op::Param(_) | Op::Const(_) => (0, 0),
        Op::Reduce(_) | Op::ArgReduce { .. } | Op::Softmax { .. } | Op::View | Op::Sort { .. } => (1, 1),
        Op::Norm { kind: Norm::Layer, .. } => (2, 3),
        Op::Norm { kind: Norm::Rms, .. } => (2, 2),
        Op::Norm { kind: Norm::Batch, .. } => (5, 5),
        Op::Dot { .. } | Op::Concat { .. } | Op::Gather | Op::If { .. } => (1, usize::MAX),
        Op::Scatter { .. } | Op::Loop { .. } => (2, usize::MAX),
        Op::Map(_) | Op::Scan { .. } | Op::Call(_) | Op::Custom { .. } => (0, usize::MAX),
    };
    if (least..=most).contains(&found) {
        return Ok(());
    }
    let expected = match (least, most) {
        (least, usize::MAX) => format!("at least {least}"),
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    Err(place.error(Mistake::OperandCount { op: place.node.op.name(), expected, found }))
}

fn output_count(place: Place) -> Result<(), CircuitError> {
    let several = matches!(
        place.node.op,
        Op::Sort { .. } | Op::Scan { .. } | Op::If { .. } | Op::Loop { .. } | Op::Call(_) | Op::Custom { .. }
    );
    if several || place.node.outputs.len() == 1 {
        return Ok(());
    }
    let (name, found) = (place.node.op.name(), place.node.outputs.len());
    Err(place.structure(format!("`{name}` has one output, not {found}")))
}

/// Which variables are contracted, normalised over or iterated.
fn variables_used(place: Place) -> Result<(), CircuitError> {
    let node = place.node;
    let name = node.op.name();
    let names = |variables: &[u32]| -> Vec<&str> {
        variables.iter().map(|variable| &*node.variables[*variable as usize].name).collect()
    };
    let contracted = node.contracted();
    match &node.op {
        Op::Input(_)
        | Op::Param(_)
        | Op::Const(_)
        | Op::Map(_)
        | Op::Softmax { .. }
        | Op::Norm { .. }
        | Op::View
        | Op::Concat { .. }
        | Op::Gather
            if !contracted.is_empty() =>
        {
            Err(place.structure(format!("`{name}` contracts nothing, but {:?} are no axes of it", names(&contracted))))
        }
        Op::ArgReduce { .. } if contracted.len() != 1 => {
            Err(place.structure(format!("`{name}` is along one variable, not {:?}", names(&contracted))))
        }
        Op::Const(_) if !node.variables.is_empty() => Err(place.structure("`const` has no axes")),
        Op::Input(_) | Op::Param(_) if node.outputs[0].variables.iter().copied().ne(0..node.variables.len() as u32) => {
            Err(place.structure(format!("`{name}` has its variables as axes, in order")))
        }
        Op::Softmax { over, .. } | Op::Norm { over, .. } => {
            if !over.is_sorted_by(|a, b| a < b) {
                return Err(place.structure(format!("`{name}` is over {:?}, which are not ascending", names(over))));
            }
            let batch = matches!(node.op, Op::Norm { kind: Norm::Batch, .. });
            if over.is_empty() != batch {
                return Err(place.structure(format!("`{name}` is over {:?}", names(over))));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
