//! The text of a plan: kernels in order, what each reads and writes, where arrays lie, memory.

use super::kernel::{
    Block, Body, CodeScales, Depthwise, Fold, Gemm, Instruction, Kernel, LoopVariable, Plan, PlanStep, RightOperand,
    Store,
};
use std::fmt::{self, Display, Formatter, Write};
use strang_ir::{Atom, Condition, ElementType, IndexExpr};
use strang_runtime::program::{Address, Base};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan 0.1")?;
        for (kind, ports) in [("input", &self.inputs), ("output", &self.outputs), ("state", &self.states)] {
            for port in ports {
                let sizes: Vec<String> = port.shape.iter().map(ToString::to_string).collect();
                writeln!(f, "{kind} {}: {}[{}]", port.name, port.element, sizes.join(", "))?;
            }
        }
        for check in &self.checks {
            writeln!(f, "check {} >= 0", check.size)?;
        }
        for (position, buffer) in self.buffers.iter().enumerate() {
            let base = match buffer.base {
                Base::Arena => "arena".to_owned(),
                Base::Input(port) => format!("input {port}"),
                Base::Output(port) => format!("output {port}"),
                Base::State(port) => format!("state {port}"),
                Base::Weights(tensor) => format!("weights {tensor}"),
            };
            let live = match buffer.base {
                Base::Arena => format!(", steps {} to {}", buffer.live.0, buffer.live.1),
                _ => String::new(),
            };
            let zeroed = if buffer.zeroed.is_empty() { "" } else { ", border zeroed" };
            writeln!(f, "buffer {position}: {base}, {} bytes{live}{zeroed}", buffer.bytes)?;
        }
        let mut number = 0;
        write_steps(f, &self.body, 0, &mut number)
    }
}

fn write_steps(f: &mut Formatter<'_>, steps: &[PlanStep], depth: usize, number: &mut u32) -> fmt::Result {
    let indent = "  ".repeat(depth);
    for step in steps {
        match step {
            PlanStep::Kernel(kernel) => {
                writeln!(f, "{indent}step {number}: {}", kernel.to_string().replace('\n', &format!("\n{indent}")))?;
                *number += 1;
            }
            PlanStep::Repeat { count, condition, body } => {
                let condition = condition.as_ref().map_or(String::new(), |place| format!(" while {}", address(place)));
                writeln!(f, "{indent}repeat {count}{condition}")?;
                write_steps(f, body, depth + 1, number)?;
            }
            PlanStep::If { condition, then, otherwise } => {
                writeln!(f, "{indent}if {}", address(condition))?;
                write_steps(f, then, depth + 1, number)?;
                writeln!(f, "{indent}else")?;
                write_steps(f, otherwise, depth + 1, number)?;
            }
            PlanStep::Host { name, label, .. } => {
                writeln!(f, "{indent}step {number}: host {name} ({label})")?;
                *number += 1;
            }
        }
    }
    Ok(())
}

fn address(place: &Address) -> String {
    if place.offset.is(0) { format!("b{}", place.buffer) } else { format!("b{}+{}", place.buffer, place.offset) }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = |variables: &[u32]| self.loops(variables);
        match &self.body {
            Body::Nest(nest) => {
                write!(f, "loop over [{}]", text(&nest.space))?;
                if !nest.contracted.is_empty() {
                    write!(f, " folding [{}]", text(&nest.contracted))?;
                }
                writeln!(f, "  ({})", self.label)?;
                self.block(f, &nest.body)?;
                for (position, fold) in nest.folds.iter().enumerate() {
                    writeln!(f, "    fold {position} = {}", fold_text(fold))?;
                }
                self.block(f, &nest.finish)?;
                self.stores(f, &nest.stores)
            }
            Body::Rows(rows) => {
                writeln!(f, "rows over [{}] row [{}]  ({})", text(&rows.space), text(&rows.row), self.label)?;
                self.block(f, &rows.prologue)?;
                self.stores(f, &rows.prologue_stores)?;
                writeln!(f, "    {:?} of v{}", rows.operation, rows.value)?;
                self.block(f, &rows.finish)?;
                self.stores(f, &rows.stores)
            }
            Body::Gemm(gemm) => self.gemm(f, gemm),
            Body::Attention(attention) => {
                writeln!(
                    f,
                    "attention batch [{}] rows [{}] keys [{}] depth [{}] columns [{}]  ({})",
                    text(&attention.batch),
                    text(&[attention.rows]),
                    text(&[attention.keys]),
                    text(&[attention.depth]),
                    text(&[attention.columns]),
                    self.label
                )?;
                let [q, k, v] = [attention.q, attention.k, attention.v].map(|access| self.access(access));
                writeln!(f, "    q {q}  k {k}  v {v}")?;
                self.block(f, &attention.score)?;
                writeln!(f, "    softmax of v{}", attention.score_value)?;
                self.block(f, &attention.finish)?;
                self.stores(f, &attention.stores)
            }
            Body::Depthwise(depthwise) => self.depthwise(f, depthwise),
            Body::Bands(bands) => {
                writeln!(f, "bands of {} rows and {} channels  ({})", bands.rows, bands.channels, self.label)?;
                write!(f, "    first ")?;
                self.gemm(f, &bands.producer)?;
                write!(f, "    then ")?;
                self.depthwise(f, &bands.consumer)
            }
            Body::Builtin { name, grid, .. } => writeln!(f, "{name} over [{grid}]  ({})", self.label),
        }
    }
}

impl Kernel {
    fn loops(&self, variables: &[u32]) -> String {
        let sizes: Vec<String> = variables
            .iter()
            .map(|v| match &self.variables[*v as usize] {
                LoopVariable::Loop(size) => format!("i{v} < {size}"),
                LoopVariable::Counter(depth) => format!("i{v} = iteration {depth}"),
            })
            .collect();
        sizes.join(", ")
    }

    fn gemm(&self, f: &mut Formatter<'_>, gemm: &Gemm) -> fmt::Result {
        let extent = |v: u32| self.loops(&[v]);
        writeln!(
            f,
            "gemm{} batch [{}] rows [{}] columns [{}] taps [{}] depth [{}]  ({})",
            if gemm.sum(&self.accesses) == ElementType::I32 { " of bytes" } else { "" },
            self.loops(&gemm.batch),
            extent(gemm.rows),
            extent(gemm.columns),
            self.loops(&gemm.taps),
            extent(gemm.depth),
            self.label
        )?;
        let (a, b) = (self.access(gemm.a), self.access(gemm.b.access()));
        match gemm.b {
            RightOperand::Packed(packed) => {
                let is_bf16 = self.accesses[packed as usize].element == ElementType::BF16;
                writeln!(f, "    {a} times packed {}{b}", if is_bf16 { "bf16 " } else { "" })?;
            }
            RightOperand::Pairs(_) => writeln!(f, "    {a} rounded, times packed pairs of bf16 {b}")?,
            RightOperand::Strided(_) => writeln!(f, "    {a} times {b}")?,
            RightOperand::Coded { scales: Some(CodeScales { rows, depths, bits, have_zeros }), .. } => {
                let zeros = if have_zeros { " and zero points" } else { "" };
                let scales = self.access(rows);
                writeln!(f, "    {a} times codes of {bits} bits {b}, scales{zeros} of {depths} depths {scales}")?;
            }
            RightOperand::Coded { book, by_column, .. } => {
                let columns = if by_column > 0 { " of each column" } else { "" };
                writeln!(f, "    {a} times codes {b} in the book {}{columns}", self.access(book))?;
            }
        }
        self.block(f, &gemm.finish)?;
        self.stores(f, &gemm.stores)
    }

    fn depthwise(&self, f: &mut Formatter<'_>, depthwise: &Depthwise) -> fmt::Result {
        writeln!(
            f,
            "depthwise{} batch [{}] columns [{}] channels [{}] taps [{}]  ({})",
            if depthwise.sum(&self.accesses) == ElementType::I32 { " of bytes" } else { "" },
            self.loops(&depthwise.batch),
            self.loops(&[depthwise.columns]),
            self.loops(&[depthwise.channels]),
            self.loops(&depthwise.taps),
            self.label
        )?;
        writeln!(f, "    {} times {}", self.access(depthwise.a), self.access(depthwise.weights))?;
        self.block(f, &depthwise.finish)?;
        self.stores(f, &depthwise.stores)
    }

    fn access(&self, position: u32) -> String {
        let access = &self.accesses[position as usize];
        let place = address(&self.pointers[access.pointer as usize]);
        let mut text = format!("{}[{}]", place, expression(&access.address));
        if let Some(guard) = &access.guard {
            let conditions: Vec<String> = guard.conditions.iter().map(condition).collect();
            let _ = write!(text, " if {} else {}", conditions.join(" and "), guard.fill);
        }
        text
    }

    fn block(&self, f: &mut Formatter<'_>, block: &Block) -> fmt::Result {
        for (position, instruction) in block.instructions.iter().enumerate() {
            let text = match instruction {
                Instruction::Load(access) => format!("load {}", self.access(*access)),
                Instruction::Inside(access) => format!("inside {}", self.access(*access)),
                Instruction::Index(variable) => format!("index i{variable}"),
                Instruction::Size(size) => format!("size {size}"),
                Instruction::Literal(literal) => format!("{} {literal}", literal.element),
                Instruction::Unary(function, value) => format!("{} v{value}", function.name()),
                Instruction::Binary(function, a, b) => format!("{} v{a}, v{b}", function.name()),
                Instruction::Select(condition, yes, no) => format!("select v{condition}, v{yes}, v{no}"),
                Instruction::Cast(element, value) => format!("cast({element}) v{value}"),
                Instruction::Folded(fold) => format!("result {fold}"),
            };
            writeln!(f, "    v{position} = {text}")?;
        }
        Ok(())
    }

    fn stores(&self, f: &mut Formatter<'_>, stores: &[Store]) -> fmt::Result {
        for store in stores {
            let combine = store.combine.map_or(String::new(), |monoid| format!(" combined by {}", monoid.name()));
            writeln!(f, "    store {} = v{}{combine}", self.access(store.access), store.value)?;
        }
        Ok(())
    }
}

fn fold_text(fold: &Fold) -> String {
    let when = |when: &Option<u32>| when.map_or(String::new(), |when| format!(" when v{when}"));
    match fold {
        Fold::MultiplyAdd { a, b, when: condition } => format!("sum of v{a} * v{b}{}", when(condition)),
        Fold::Monoid { monoid, value, when: condition } => format!("{} of v{value}{}", monoid.name(), when(condition)),
        Fold::Arg { value, largest, last } => {
            let (which, tie) = (if *largest { "largest" } else { "smallest" }, if *last { "last" } else { "first" });
            format!("position of the {tie} {which} v{value}")
        }
    }
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Range { expression: e, low, high } => format!("{low} <= {} < {high}", expression(e)),
        Condition::Divisible { expression: e, divisor } => format!("{divisor} divides {}", expression(e)),
    }
}

/// An address in terms of loop variables.
fn expression(expr: &IndexExpr) -> String {
    let mut terms: Vec<String> = Vec::new();
    for (atom, coefficient) in expr.terms() {
        let atom = match atom {
            Atom::Variable(variable) => format!("i{variable}"),
            Atom::FloorDiv(inner, divisor) => format!("({})//({divisor})", expression(inner)),
            Atom::Remainder(inner, divisor) => format!("({})%({divisor})", expression(inner)),
            Atom::Clamp(inner, low, high) => format!("clamp({}, {low}, {high})", expression(inner)),
            Atom::Table(table, inner) => format!("table of {}({})", table.len(), expression(inner)),
            Atom::Read(access) => format!("read {access}"),
        };
        let constant = coefficient.as_constant();
        terms.push(match constant {
            Some(1) => atom,
            Some(_) => format!("{coefficient}*{atom}"),
            None => format!("({coefficient})*{atom}"),
        });
    }
    if !expr.offset().is(0) || terms.is_empty() {
        terms.push(expr.offset().to_string());
    }
    terms.join(" + ")
}
