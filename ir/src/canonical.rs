//! Canonical nodes: variables renumbered, so that nodes that differ only in the names and places of their variables are
//! equal. What carries meaning, the order of summation, is kept.

use crate::{Atom, Condition, IndexExpr, IndexMap, Node, Op, ScalarExpr};

impl Node {
    /// The node with its variables in canonical order: those of the outputs, in order of first appearance there, then
    /// the others in the node's order. A node stays as it is where that would change an order of summation (of the
    /// normalised variables of softmax and norm, of the updates of scatter).
    pub fn canonical(&self) -> Node {
        self.clone().into_canonical()
    }

    /// [`Node::canonical`] of a node that is not needed any more.
    pub fn into_canonical(self) -> Node {
        match self.canonical_places() {
            Some(places) => self.renumbered(&places),
            None => self,
        }
    }

    /// Where [`Node::canonical`] puts each variable; `None` when all stay.
    pub(crate) fn canonical_places(&self) -> Option<Vec<u32>> {
        let count = self.variables.len();
        let mut places: Vec<Option<u32>> = vec![None; count];
        let mut next = 0;
        let outputs = self.outputs.iter().flat_map(|output| &output.variables).copied();
        for variable in outputs.chain(0..count as u32) {
            if let Some(place @ None) = places.get_mut(variable as usize) {
                *place = Some(next);
                next += 1;
            }
        }
        let places: Vec<u32> = places.into_iter().flatten().collect();
        let identity = places.iter().enumerate().all(|(from, to)| from as u32 == *to);
        let order = self.summation_order();
        let place = |variable: &u32| places.get(*variable as usize).copied().unwrap_or(*variable);
        (!identity && order.iter().map(place).is_sorted()).then_some(places)
    }

    /// The variables whose relative order carries meaning although they may be output variables, ascending.
    fn summation_order(&self) -> Vec<u32> {
        match &self.op {
            Op::Softmax { over, .. } | Op::Norm { over, .. } => over.clone(),
            Op::Scatter { .. } => {
                let mut mentioned = Vec::new();
                for map in self.maps.iter().skip(1) {
                    map.visit_variables(&mut |variable| mentioned.push(variable));
                }
                mentioned.sort_unstable();
                mentioned.dedup();
                mentioned
            }
            _ => Vec::new(),
        }
    }

    /// The node with variable `v` at position `places[v]`. `places` is a permutation of the variables; positions outside
    /// it stay.
    pub fn renumbered(&self, places: &[u32]) -> Node {
        let place = |variable: u32| places.get(variable as usize).copied().unwrap_or(variable);
        let mut variables: Vec<_> = self.variables.iter().cloned().enumerate().collect();
        variables.sort_by_key(|(position, _)| place(*position as u32));
        let over = |over: &[u32]| {
            let mut over: Vec<u32> = over.iter().map(|variable| place(*variable)).collect();
            over.sort_unstable();
            over
        };
        let op = match &self.op {
            Op::Map(expression) => Op::Map(expression.replace_leaves(&mut |leaf| match leaf {
                ScalarExpr::Index(variable) => ScalarExpr::Index(place(*variable)),
                other => other.clone(),
            })),
            Op::Softmax { over: variables, log } => Op::Softmax { over: over(variables), log: *log },
            Op::Norm { kind, over: variables, epsilon } => {
                Op::Norm { kind: *kind, over: over(variables), epsilon: *epsilon }
            }
            Op::Concat { along, offsets } => Op::Concat { along: place(*along), offsets: offsets.clone() },
            Op::Scatter { reduction, target } => Op::Scatter {
                reduction: *reduction,
                target: target.iter().map(|expression| expression.renumbered(&place)).collect(),
            },
            Op::Scan { body, along, reverse, states } => {
                Op::Scan { body: *body, along: place(*along), reverse: *reverse, states: *states }
            }
            Op::Sort { along, kept, descending } => {
                Op::Sort { along: place(*along), kept: place(*kept), descending: *descending }
            }
            other => other.clone(),
        };
        let mut outputs = self.outputs.clone();
        for output in &mut outputs {
            output.variables.iter_mut().for_each(|variable| *variable = place(*variable));
        }
        Node {
            op,
            variables: variables.into_iter().map(|(_, variable)| variable).collect(),
            maps: self.maps.iter().map(|map| map.renumbered(&place)).collect(),
            outputs,
            source: self.source.clone(),
            block: self.block.clone(),
        }
    }
}

impl IndexMap {
    /// The same map with other positions of the variables.
    pub fn renumbered(&self, place: &dyn Fn(u32) -> u32) -> IndexMap {
        let condition = |condition: &Condition| match condition {
            Condition::Range { expression, low, high } => {
                Condition::Range { expression: expression.renumbered(place), low: low.clone(), high: high.clone() }
            }
            Condition::Divisible { expression, divisor } => {
                Condition::Divisible { expression: expression.renumbered(place), divisor: divisor.clone() }
            }
        };
        IndexMap {
            exprs: self.exprs.iter().map(|expression| expression.renumbered(place)).collect(),
            conditions: self.conditions.iter().map(condition).collect(),
            fill: self.fill,
        }
    }

    /// Calls `visit` with every variable that occurs, conditions included.
    pub fn visit_variables(&self, visit: &mut dyn FnMut(u32)) {
        self.exprs.iter().for_each(|expression| expression.visit_variables(visit));
        self.conditions.iter().for_each(|condition| condition.expression().visit_variables(visit));
    }
}

impl IndexExpr {
    /// The same expression with other positions of the variables, otherwise as it is written.
    pub fn renumbered(&self, place: &dyn Fn(u32) -> u32) -> IndexExpr {
        let inner = |inner: &IndexExpr| Box::new(inner.renumbered(place));
        let atom = |atom: &Atom| match atom {
            Atom::Variable(position) => Atom::Variable(place(*position)),
            Atom::FloorDiv(e, divisor) => Atom::FloorDiv(inner(e), divisor.clone()),
            Atom::Remainder(e, divisor) => Atom::Remainder(inner(e), divisor.clone()),
            Atom::Clamp(e, low, high) => Atom::Clamp(inner(e), low.clone(), high.clone()),
            Atom::Table(table, e) => Atom::Table(table.clone(), inner(e)),
            Atom::Read(slot) => Atom::Read(*slot),
        };
        let terms = self.terms().iter().map(|(a, coefficient)| (atom(a), coefficient.clone()));
        IndexExpr::new(terms, self.offset().clone())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Axis, ElementType, IndexMap, Node, Op, Output, Source, Variable, op::Monoid};

    fn reduction(variables: &[&str], result: &[u32], read: &[u32], op: Op) -> Node {
        Node {
            op,
            variables: variables.iter().map(|name| Variable::over(&Axis::symbolic(*name))).collect(),
            maps: vec![IndexMap::of_variables(read.iter().copied())].into(),
            outputs: vec![Output { name: "r".into(), element: ElementType::F32, variables: result.to_vec() }],
            source: Source::None,
            block: None,
        }
    }

    #[test]
    fn output_variables_come_first() {
        let node = reduction(&["m", "b"], &[1], &[1, 0], Op::Reduce(Monoid::Sum)).canonical();
        assert_eq!(node, reduction(&["b", "m"], &[0], &[0, 1], Op::Reduce(Monoid::Sum)));
    }

    #[test]
    fn the_order_of_summation_stays() {
        let sum = |variables: &[&str]| reduction(variables, &[0], &[0, 1, 2], Op::Reduce(Monoid::Sum)).canonical();
        assert_ne!(sum(&["b", "p", "q"]), sum(&["b", "q", "p"]));
        let softmax = reduction(&["m", "s"], &[1, 0], &[0, 1], Op::Softmax { over: vec![0, 1], log: false });
        assert_eq!(softmax.canonical(), softmax, "s would come before m");
    }
}
