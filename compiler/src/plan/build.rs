//! Building one kernel: loop variables, pointers, accesses, and the scalar code of the nodes in it.

use super::{
    kernel::{Access, Block, Guard, Instruction, LoopVariable, Store},
    layout::{COUNTER, Layout},
    residues::{self, Residues},
    scope::Scope,
    trace::{Trace, through_map, through_views, variable_positions},
};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_ir::{
    Atom, Condition, ElementType, IndexExpr, Literal, Op, ScalarExpr, Size, Value,
    op::Norm,
    scalar::{Binary, Unary},
};
use strang_runtime::program::Address;

/// A kernel under construction.
#[derive(Clone, Debug, Default)]
pub struct KernelBuilder {
    /// The loop variables.
    pub variables: Vec<LoopVariable>,
    /// Pieces of memory.
    pub pointers: Vec<Address>,
    /// Places.
    pub accesses: Vec<Access>,
    /// Values of nodes of the kernel that the current block has computed.
    pub locals: FxHashMap<Value, u32>,
    /// The positions that it computes, of variables of which it does not run over all.
    pub residues: Residues,
}

/// A read that no kernel can do as it stands; the value must be stored first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MustStore(pub Value);

type Guarded = Option<(Vec<Condition>, Literal)>;

impl KernelBuilder {
    /// A kernel with loop variables of these sizes.
    pub fn new(sizes: impl IntoIterator<Item = Size>) -> Self {
        KernelBuilder { variables: sizes.into_iter().map(LoopVariable::Loop).collect(), ..Default::default() }
    }

    /// The positions of a node's variables where variable `j` of the node is variable `frame[j]`.
    pub fn positions(&self, frame: &[u32]) -> Vec<IndexExpr> {
        let position = |variable: &u32| residues::position(&self.residues, *variable, IndexExpr::variable(*variable));
        frame.iter().map(position).collect()
    }

    /// The number of positions of a variable (1 for a counter, which does not loop; counters are never bounded by it).
    pub fn size_of(&self, variable: u32) -> Size {
        self.variables.get(variable as usize).map_or_else(|| Size::symbol("iterations"), LoopVariable::extent)
    }

    /// Counters of enclosing repeats become variables of the kernel.
    fn with_counters(&mut self, expr: &IndexExpr) -> IndexExpr {
        let mut counters = Vec::new();
        expr.visit_variables(&mut |variable| {
            if variable >= COUNTER {
                counters.push(variable - COUNTER);
            }
        });
        if counters.is_empty() {
            return expr.clone();
        }
        let places: FxHashMap<u32, u32> = counters.into_iter().map(|depth| (depth, self.counter(depth))).collect();
        let rename = |v: u32| IndexExpr::variable(if v >= COUNTER { places[&(v - COUNTER)] } else { v });
        expr.substitute(&rename, &|slot| slot, &|v| self.size_of(v))
    }

    fn counter(&mut self, depth: u32) -> u32 {
        let wanted = LoopVariable::Counter(depth);
        if let Some(found) = self.variables.iter().position(|variable| *variable == wanted) {
            return found as u32;
        }
        self.variables.push(wanted);
        self.variables.len() as u32 - 1
    }

    /// An access to an array at a position; equal accesses are one.
    pub fn access(&mut self, layout: &Layout, position: &[IndexExpr], guard: Guarded) -> u32 {
        let fixed = IndexExpr::constant(layout.offset.offset().clone());
        let moving = layout.offset.plus(&fixed.times(&Size::from(-1)));
        let bits = Size::from(i64::from(layout.element.bits()));
        let offset = (fixed.offset() * &bits).floor_div(&Size::from(8));
        let pointer = self.pointer(Address { buffer: layout.buffer, offset });
        let relative = Layout { offset: moving, ..layout.clone() };
        let address = super::trace::recombined(&relative.address(position), &|v| self.size_of(v));
        let address = self.with_counters(&address);
        let guard = guard.map(|(conditions, fill)| Guard {
            conditions: conditions.iter().map(|condition| self.condition(condition)).collect(),
            fill,
        });
        self.add(Access { pointer, element: layout.element, address, guard, checked: Vec::new() })
    }

    fn condition(&mut self, condition: &Condition) -> Condition {
        match condition {
            Condition::Range { expression, low, high } => {
                Condition::Range { expression: self.with_counters(expression), low: low.clone(), high: high.clone() }
            }
            Condition::Divisible { expression, divisor } => {
                Condition::Divisible { expression: self.with_counters(expression), divisor: divisor.clone() }
            }
        }
    }

    fn pointer(&mut self, address: Address) -> u32 {
        if let Some(found) = self.pointers.iter().position(|other| *other == address) {
            return found as u32;
        }
        self.pointers.push(address);
        self.pointers.len() as u32 - 1
    }

    fn add(&mut self, access: Access) -> u32 {
        if let Some(found) = self.accesses.iter().position(|other| *other == access) {
            return found as u32;
        }
        self.accesses.push(access);
        self.accesses.len() as u32 - 1
    }

    /// The value of `value` at a position.
    ///
    /// # Errors
    /// A value that must be an array for this read.
    pub fn read(&mut self, scope: &Scope, block: &mut Block, trace: Trace) -> Result<u32, MustStore> {
        let function = scope.function;
        let trace = through_views(function, trace, &|value| scope.is_virtual(value), &|v| self.size_of(v));
        let Trace { value, position, guard } = trace;
        if let Some(local) = self.locals.get(&value) {
            return match guard {
                None => Ok(*local),
                Some(_) => Err(MustStore(value)),
            };
        }
        if let Some(literal) = scope.literal(value) {
            let constant = block.push(Instruction::Literal(literal));
            return Ok(self.guarded(block, constant, guard));
        }
        if let Some(layout) = scope.arrays.get(&value) {
            let access = self.access(layout, &position, guard);
            return Ok(block.push(Instruction::Load(access)));
        }
        let node = &function.graph[value.node];
        if !scope.is_virtual(value) {
            return Err(MustStore(value));
        }
        let positions = variable_positions(node, value.port, &position);
        let result = match (&node.op, &guard) {
            (Op::Map(expr), Some((conditions, _))) => {
                let operands = self.guarded_operands(scope, block, value.node, &positions, conditions)?;
                self.scalar(block, expr, &operands, &positions)
            }
            _ => self.node_value(scope, block, value.node, &positions)?,
        };
        Ok(self.guarded(block, result, guard))
    }

    /// The operands of a map that is computed where it is read, at positions that may not exist: what they read there does
    /// not matter, but must be somewhere.
    fn guarded_operands(
        &mut self,
        scope: &Scope,
        block: &mut Block,
        index: NodeIndex,
        positions: &[IndexExpr],
        conditions: &[Condition],
    ) -> Result<Vec<u32>, MustStore> {
        let function = scope.function;
        let mut values = Vec::new();
        for (slot, operand) in function.operands(index).into_iter().enumerate() {
            let map = &function.graph[index].maps[slot];
            let trace = through_map(function, map, operand, positions, None, &|v| self.size_of(v));
            let mut trace = through_views(function, trace, &|value| scope.is_virtual(value), &|v| self.size_of(v));
            // A guard of its own has a fill that counts; maps that read arrays have none.
            if trace.guard.is_none() && scope.literal(trace.value).is_none() {
                trace.guard = Some((conditions.to_vec(), Literal::zero(function.element_of(trace.value))));
            }
            values.push(self.read(scope, block, trace)?);
        }
        Ok(values)
    }

    /// A value where a guard holds, else the fill.
    fn guarded(&mut self, block: &mut Block, value: u32, guard: Guarded) -> u32 {
        let Some((conditions, fill)) = guard else { return value };
        let conditions = conditions.iter().map(|condition| self.condition(condition)).collect();
        let guard = Some(Guard { conditions, fill });
        let place = Access { pointer: 0, element: fill.element, address: IndexExpr::default(), guard, checked: vec![] };
        let access = self.add(place);
        let inside = block.push(Instruction::Inside(access));
        let fill = block.push(Instruction::Literal(fill));
        block.push(Instruction::Select(inside, value, fill))
    }

    /// The value of operand `slot` of a node whose variables have the given positions.
    ///
    /// # Errors
    /// A value that must be an array for this read.
    pub fn operand(
        &mut self,
        scope: &Scope,
        block: &mut Block,
        node: NodeIndex,
        slot: usize,
        positions: &[IndexExpr],
    ) -> Result<u32, MustStore> {
        let map = &scope.function.graph[node].maps[slot];
        let operand = scope.function.operands(node)[slot];
        let trace = through_map(scope.function, map, operand, positions, None, &|v| self.size_of(v));
        self.read(scope, block, trace)
    }

    /// What a map-like node (map, view, gather, batch normalisation) computes at given positions of its variables.
    ///
    /// # Errors
    /// A value that must be an array for this read.
    pub fn node_value(
        &mut self,
        scope: &Scope,
        block: &mut Block,
        index: NodeIndex,
        positions: &[IndexExpr],
    ) -> Result<u32, MustStore> {
        let node = &scope.function.graph[index];
        match &node.op {
            Op::Map(expr) => {
                let slots = scope.function.operands(index).len();
                let operands: Vec<u32> = (0..slots)
                    .map(|slot| self.operand(scope, block, index, slot, positions))
                    .collect::<Result<_, _>>()?;
                Ok(self.scalar(block, expr, &operands, positions))
            }
            Op::View => self.operand(scope, block, index, 0, positions),
            Op::Gather => self.gather(scope, block, index, positions),
            Op::Norm { kind: Norm::Batch, epsilon, .. } => {
                let values: Vec<u32> =
                    (0..5).map(|slot| self.operand(scope, block, index, slot, positions)).collect::<Result<_, _>>()?;
                let [x, gain, bias, mean, variance] = values[..] else { unreachable!("five operands were read") };
                let element = node.outputs[0].element;
                let epsilon = block.push(Instruction::Literal(Literal::from_f64(element, epsilon.to_f64())));
                let shifted = block.push(Instruction::Binary(Binary::Add, variance, epsilon));
                let deviation = block.push(Instruction::Unary(Unary::SquareRoot, shifted));
                let scale = block.push(Instruction::Binary(Binary::Divide, gain, deviation));
                let centred = block.push(Instruction::Binary(Binary::Subtract, x, mean));
                let scaled = block.push(Instruction::Binary(Binary::Multiply, centred, scale));
                Ok(block.push(Instruction::Binary(Binary::Add, scaled, bias)))
            }
            _ => Err(MustStore(index.into())),
        }
    }

    fn gather(
        &mut self,
        scope: &Scope,
        block: &mut Block,
        index: NodeIndex,
        positions: &[IndexExpr],
    ) -> Result<u32, MustStore> {
        let node = &scope.function.graph[index];
        let reads = self.index_reads(scope, index, positions, 1)?;
        let operand = scope.function.operands(index)[0];
        let rename = |map: &IndexExpr, builder: &Self| {
            map.substitute(&|v| positions[v as usize].clone(), &|slot| reads[&slot], &|v| builder.size_of(v))
        };
        let shape = scope.function.shape_of(operand);
        let mut checked = Vec::new();
        for (expr, size) in node.maps[0].exprs.iter().zip(&shape) {
            let expr = rename(expr, self);
            if reads_data(&expr) {
                checked.push((expr, size.clone()));
            }
        }
        let mut map = node.maps[0].clone();
        for expr in &mut map.exprs {
            *expr = expr.substitute(&IndexExpr::variable, &|slot| reads[&slot], &|v| node.size_of(v));
        }
        let trace = through_map(scope.function, &map, operand, positions, None, &|v| self.size_of(v));
        let has_guard = trace.guard.is_some();
        let value = self.read(scope, block, trace)?;
        // A gather with a fill yields the fill outside; without one an index outside ends the run.
        if !has_guard && let Instruction::Load(access) = block.instructions[value as usize] {
            self.accesses[access as usize].checked = checked;
        }
        Ok(value)
    }

    /// Accesses of the index operands of a gather or scatter, by slot.
    ///
    /// # Errors
    /// An index operand that is not an array.
    pub fn index_reads(
        &mut self,
        scope: &Scope,
        index: NodeIndex,
        positions: &[IndexExpr],
        first: usize,
    ) -> Result<FxHashMap<u32, u32>, MustStore> {
        let node = &scope.function.graph[index];
        let operands = scope.function.operands(index);
        let mut reads = FxHashMap::default();
        for (slot, operand) in operands.into_iter().enumerate().skip(first) {
            let trace = through_map(scope.function, &node.maps[slot], operand, positions, None, &|v| self.size_of(v));
            let trace = through_views(scope.function, trace, &|value| scope.is_virtual(value), &|v| self.size_of(v));
            let Some(layout) = scope.arrays.get(&trace.value) else { return Err(MustStore(trace.value)) };
            let access = self.access(layout, &trace.position, trace.guard);
            reads.insert(slot as u32, access);
        }
        Ok(reads)
    }

    /// The instructions of a scalar expression.
    pub fn scalar(&mut self, block: &mut Block, expr: &ScalarExpr, operands: &[u32], positions: &[IndexExpr]) -> u32 {
        let instruction = match expr {
            ScalarExpr::Operand(slot) => return operands[*slot as usize],
            ScalarExpr::Index(variable) => return self.index_value(block, &positions[*variable as usize]),
            ScalarExpr::Size(size) => Instruction::Size(size.clone()),
            ScalarExpr::Literal(literal) => Instruction::Literal(*literal),
            ScalarExpr::Unary(function, a) => Instruction::Unary(*function, self.scalar(block, a, operands, positions)),
            ScalarExpr::Binary(function, a, b) => {
                let a = self.scalar(block, a, operands, positions);
                Instruction::Binary(*function, a, self.scalar(block, b, operands, positions))
            }
            ScalarExpr::Select(condition, yes, no) => {
                let condition = self.scalar(block, condition, operands, positions);
                let yes = self.scalar(block, yes, operands, positions);
                Instruction::Select(condition, yes, self.scalar(block, no, operands, positions))
            }
            ScalarExpr::Cast(element, a) => Instruction::Cast(*element, self.scalar(block, a, operands, positions)),
        };
        block.push(instruction)
    }

    /// The value of an index expression as i64.
    fn index_value(&mut self, block: &mut Block, expr: &IndexExpr) -> u32 {
        let expr = self.with_counters(expr);
        let mut sum = block.push(Instruction::Size(expr.offset().clone()));
        if let Some(variable) = expr.as_variable() {
            return block.push(Instruction::Index(variable));
        }
        for (atom, coefficient) in expr.terms() {
            let value = match atom {
                Atom::Variable(variable) => block.push(Instruction::Index(*variable)),
                Atom::FloorDiv(inner, divisor) => {
                    // Positions are not negative where nodes read them, so truncation is flooring.
                    let inner = self.index_value(block, inner);
                    let divisor = block.push(Instruction::Size(divisor.clone()));
                    block.push(Instruction::Binary(Binary::Divide, inner, divisor))
                }
                Atom::Remainder(inner, divisor) => {
                    let inner = self.index_value(block, inner);
                    let divisor = block.push(Instruction::Size(divisor.clone()));
                    block.push(Instruction::Binary(Binary::Modulo, inner, divisor))
                }
                Atom::Clamp(inner, low, high) => {
                    let inner = self.index_value(block, inner);
                    let (low, high) = (Instruction::Size(low.clone()), Instruction::Size(high.clone()));
                    let high = block.push(high);
                    let limited = block.push(Instruction::Binary(Binary::Minimum, inner, high));
                    let low = block.push(low);
                    block.push(Instruction::Binary(Binary::Maximum, limited, low))
                }
                Atom::Table(table, inner) => {
                    let position = self.index_value(block, inner);
                    self.table_value(block, table, position)
                }
                Atom::Read(access) => {
                    let loaded = block.push(Instruction::Load(*access));
                    block.push(Instruction::Cast(ElementType::I64, loaded))
                }
            };
            let coefficient = block.push(Instruction::Size(coefficient.clone()));
            let scaled = block.push(Instruction::Binary(Binary::Multiply, value, coefficient));
            sum = block.push(Instruction::Binary(Binary::Add, sum, scaled));
        }
        sum
    }

    /// A table entry by comparisons: tables of index values in scalar code are short.
    fn table_value(&mut self, block: &mut Block, table: &[i64], position: u32) -> u32 {
        let mut result = block.push(Instruction::Literal(Literal::i64(*table.first().unwrap_or(&0))));
        for (index, entry) in table.iter().enumerate().skip(1) {
            let index = block.push(Instruction::Literal(Literal::i64(index as i64)));
            let here = block.push(Instruction::Binary(Binary::Equal, position, index));
            let entry = block.push(Instruction::Literal(Literal::i64(*entry)));
            result = block.push(Instruction::Select(here, entry, result));
        }
        result
    }

    /// A write of a block's value to an array at a position.
    pub fn store(&mut self, layout: &Layout, position: &[IndexExpr], value: u32) -> Store {
        let access = self.access(layout, position, None);
        Store { access, value, combine: None }
    }

    /// Joins two loop variables into one, `outer * size(inner) + inner`, when every access and every instruction allows
    /// it; `inner` then runs over both and `outer` has one position.
    pub fn merge(&mut self, outer: u32, inner: u32, blocks: &[&Block]) -> bool {
        let inner_size = self.size_of(inner);
        let free = |expr: &IndexExpr| !expr.mentions(outer) && !expr.mentions(inner);
        let plain = |expr: &IndexExpr| {
            expr.terms().iter().all(|(atom, _)| match atom {
                Atom::Variable(_) => true,
                other => free(&IndexExpr::atom(other.clone())),
            })
        };
        let fits = self.accesses.iter().all(|access| {
            plain(&access.address)
                && access.address.coefficient(outer) == &inner_size * access.address.coefficient(inner)
                && access.guard.iter().flat_map(|guard| &guard.conditions).all(|c| free(c.expression()))
                && access.checked.iter().all(|(expr, _)| free(expr))
        });
        let unread = blocks
            .iter()
            .flat_map(|block| &block.instructions)
            .all(|instruction| !matches!(instruction, Instruction::Index(v) if *v == outer || *v == inner));
        if !fits || !unread {
            return false;
        }
        for access in &mut self.accesses {
            let without = IndexExpr::new(
                access.address.terms().iter().filter(|(atom, _)| *atom != Atom::Variable(outer)).cloned(),
                access.address.offset().clone(),
            );
            access.address = without;
        }
        self.variables[inner as usize] = LoopVariable::Loop(self.size_of(outer) * inner_size);
        self.variables[outer as usize] = LoopVariable::Loop(Size::ONE);
        true
    }
}

/// Whether an expression reads data.
pub fn reads_data(expr: &IndexExpr) -> bool {
    expr.terms().iter().any(|(atom, _)| match atom {
        Atom::Read(_) => true,
        Atom::FloorDiv(inner, _) | Atom::Remainder(inner, _) | Atom::Clamp(inner, ..) | Atom::Table(_, inner) => {
            reads_data(inner)
        }
        Atom::Variable(_) => false,
    })
}
