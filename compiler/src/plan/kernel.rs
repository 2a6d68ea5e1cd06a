//! Planned kernels: what planning hands to code generation.
//!
//! Physical layout is decided here: an access is a pointer and one index expression that gives an element's position from
//! it, so code generation knows no axes and no maps, only loop variables, addresses and scalar instructions.

use std::sync::Arc;
use strang_ir::{
    Condition, ElementType, IndexExpr, Literal, Size, Tensor,
    op::Monoid,
    scalar::{Binary, Unary},
};
use strang_runtime::{
    kernels::book,
    program::{Address, Argument, Buffer, Check, Cost, Port, Symbol},
};

/// A planned program: a [`strang_runtime::program::Program`] whose kernels are not yet code.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The symbols that inputs bind.
    pub symbols: Vec<Symbol>,
    /// What a run reads.
    pub inputs: Vec<Port>,
    /// What a run writes.
    pub outputs: Vec<Port>,
    /// Memory that lives from run to run.
    pub states: Vec<Port>,
    /// Conditions on symbols.
    pub checks: Vec<Check>,
    /// Constant data, packed.
    pub weights: Vec<Tensor>,
    /// Pieces of memory.
    pub buffers: Vec<Buffer>,
    /// What a run does.
    pub body: Vec<PlanStep>,
}

impl Plan {
    /// Floating-point operations of a run, a fused multiply-add counting two; of a choice, both branches count.
    pub fn flops(&self) -> Size {
        fn of(steps: &[PlanStep]) -> Size {
            let each = steps.iter().map(|step| match step {
                PlanStep::Kernel(kernel) => kernel.cost.flops.clone(),
                PlanStep::Repeat { count, body, .. } => count * of(body),
                PlanStep::If { then, otherwise, .. } => of(then) + of(otherwise),
                PlanStep::Host { .. } => Size::ZERO,
            });
            each.sum()
        }
        of(&self.body)
    }
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanStep {
    /// A kernel.
    Kernel(Box<Kernel>),
    /// Steps run a number of times; see [`strang_runtime::program::Step::Repeat`].
    Repeat {
        /// How often, at most.
        count: Size,
        /// Read before each iteration; false ends the loop.
        condition: Option<Address>,
        /// What is repeated.
        body: Vec<PlanStep>,
    },
    /// One of two lists of steps.
    If {
        /// The `bool` that chooses.
        condition: Address,
        /// Run when it is true.
        then: Vec<PlanStep>,
        /// Run when it is false.
        otherwise: Vec<PlanStep>,
    },
    /// A custom operation of the embedder.
    Host {
        /// Its registered name.
        name: Arc<str>,
        /// What it reads.
        operands: Vec<(Address, Port)>,
        /// What it writes.
        results: Vec<(Address, Port)>,
        /// The layer.
        label: Arc<str>,
    },
}

/// One kernel: loop variables, accesses and what is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// The user's layer, for errors and profiles.
    pub label: Arc<str>,
    /// The loop variables, which expressions name by position.
    pub variables: Vec<LoopVariable>,
    /// Pieces of memory that accesses start from. Equal pointers are the same entry; different entries that the kernel
    /// writes do not overlap any other.
    pub pointers: Vec<Address>,
    /// Places that are read or written.
    pub accesses: Vec<Access>,
    /// What is computed.
    pub body: Body,
    /// Arithmetic and traffic.
    pub cost: Cost,
}

/// What a loop variable runs over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LoopVariable {
    /// `0..size`.
    Loop(Size),
    /// The iteration of the enclosing `Repeat` of this depth (0 is outermost): a value, not a loop.
    Counter(u32),
}

impl LoopVariable {
    /// The number of positions; of a counter a symbol that nothing is known of, so that no bound is concluded from it.
    pub fn extent(&self) -> Size {
        match self {
            LoopVariable::Loop(size) => size.clone(),
            LoopVariable::Counter(_) => Size::symbol("iterations"),
        }
    }
}

/// A place in memory at every position of the loop variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// The position in [`Kernel::pointers`].
    pub pointer: u32,
    /// The type of an element.
    pub element: ElementType,
    /// Elements from the pointer. `Atom::Read(k)` is the value of access `k` (an integer type), as i64.
    pub address: IndexExpr,
    /// When given, nothing is read unless all conditions hold, and the fill is the value. Only reads have one.
    pub guard: Option<Guard>,
    /// Each expression (which contains `Atom::Read`) must lie in `0..size`; otherwise the kernel returns
    /// `status::INDEX_OUT_OF_RANGE` and touches nothing there.
    pub checked: Vec<(IndexExpr, Size)>,
}

/// When an access reads memory, and its value when it does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// The value otherwise.
    pub fill: Literal,
}

/// Straight-line code: every instruction yields a value, named by its position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Block {
    /// The instructions, operands before their users.
    pub instructions: Vec<Instruction>,
}

/// One instruction of a [`Block`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// The element at an access.
    Load(u32),
    /// Whether the guard of an access holds (`bool`).
    Inside(u32),
    /// The value of a loop variable, i64.
    Index(u32),
    /// A size, i64.
    Size(Size),
    /// A number.
    Literal(Literal),
    /// A function of one value.
    Unary(Unary, u32),
    /// A function of two values.
    Binary(Binary, u32, u32),
    /// The second value where the first holds, else the third.
    Select(u32, u32, u32),
    /// A value in another type.
    Cast(ElementType, u32),
    /// The result of fold `i` (in the finish of a nest), or of the row operation or contraction (`i` = 0).
    Folded(u32),
}

/// A write of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The place.
    pub access: u32,
    /// The value, of the same type as the access.
    pub value: u32,
    /// When given, the value is combined with what is there (scatter).
    pub combine: Option<Monoid>,
}

/// What a kernel computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A loop nest over any accesses: maps, reductions, pooling, gathers, scatters, odd contractions.
    Nest(Nest),
    /// An operation on whole rows: softmax, normalisation.
    Rows(Rows),
    /// A contraction on the batch-reduce tile.
    Gemm(Gemm),
    /// Two contractions with a softmax between, by blocks of query rows.
    Attention(Attention),
    /// A depthwise convolution, channels innermost.
    Depthwise(Depthwise),
    /// A product, and the depthwise convolution that alone reads it, by bands of rows.
    Bands(Box<Bands>),
    /// A kernel of the runtime, by name.
    Builtin {
        /// Its name in `strang_runtime::kernels::builtin`.
        name: Arc<str>,
        /// Its arguments, pointers included.
        arguments: Vec<Argument>,
        /// The number of tiles.
        grid: Size,
        /// Bytes of scratch a worker.
        scratch: Size,
    },
}

/// A loop nest. For every position of `space`: fold `body` over `contracted`, then run `finish`, then store.
#[derive(Clone, Debug, PartialEq)]
pub struct Nest {
    /// Variables of the outer loops, outermost first; the last one is best contiguous in most accesses.
    pub space: Vec<u32>,
    /// Those of `space` that may be shared among workers: all but for scatters, whose other variables run in order.
    pub parallel: Vec<u32>,
    /// Variables folded over, outermost first; empty for a map.
    pub contracted: Vec<u32>,
    /// What is computed at every position of `space` and `contracted`.
    pub body: Block,
    /// How values of `body` are folded.
    pub folds: Vec<Fold>,
    /// What is computed from the folded values at every position of `space`. Empty when there are no folds.
    pub finish: Block,
    /// Writes of values of `finish`; of `body` when there are no folds.
    pub stores: Vec<Store>,
}

/// How values combine over the contracted variables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    /// `sum = fma(a, b, sum)` from +0, in order, where `when` (a `bool` of the body) holds if it is given. Integers wrap.
    MultiplyAdd {
        /// One factor.
        a: u32,
        /// The other, of the same type, which is the accumulator's.
        b: u32,
        /// Whether the term counts.
        when: Option<u32>,
    },
    /// A monoid from its neutral element. Float sums over a last contracted variable that is contiguous use 16 virtual
    /// lanes and the fixed tree of DESIGN §7.
    Monoid {
        /// Which.
        monoid: Monoid,
        /// The value.
        value: u32,
        /// Whether it counts.
        when: Option<u32>,
    },
    /// The position (i64, row-major over the contracted variables) of the largest or smallest value.
    Arg {
        /// The value.
        value: u32,
        /// The largest, else the smallest.
        largest: bool,
        /// Of equal values the last, else the first.
        last: bool,
    },
}

/// An operation on rows: for every position of `space`, the values of `prologue` over `row` go through the operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Variables of the outer loops.
    pub space: Vec<u32>,
    /// Variables of a row, outermost first.
    pub row: Vec<u32>,
    /// Computed at every position of `space` and `row`.
    pub prologue: Block,
    /// The value of the prologue that is normalised (f32).
    pub value: u32,
    /// Values of the prologue that are stored as well (a residual sum that others read).
    pub prologue_stores: Vec<Store>,
    /// What happens to the row.
    pub operation: RowOperation,
    /// Computed at every position of `space` and `row` from the result (`Folded(0)`).
    pub finish: Block,
    /// Writes of values of `finish`.
    pub stores: Vec<Store>,
}

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowOperation {
    /// `exp(x - max) / sum`.
    Softmax,
    /// `x - max - log(sum)`.
    LogSoftmax,
    /// `(x - mean) / sqrt(variance + epsilon)`.
    LayerNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// `x / sqrt(mean square + epsilon)`.
    RmsNorm {
        /// Added to the mean square.
        epsilon: f32,
    },
}

/// A contraction of f32, or of unsigned with signed bytes summed in i32: for every position of `batch`, a matrix product over
/// `taps` (outer) and `depth` (inner), in this order. All accesses are without guards: padding is memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Variables of independent products, outermost first.
    pub batch: Vec<u32>,
    /// The variable of the rows; accesses are affine in it.
    pub rows: u32,
    /// The variable of the columns.
    pub columns: u32,
    /// Contracted variables that select blocks of A and B.
    pub taps: Vec<u32>,
    /// The innermost contracted variable.
    pub depth: u32,
    /// The left operand: its address is affine in batch, rows, taps and depth.
    pub a: u32,
    /// The right operand.
    pub b: RightOperand,
    /// Computed from the sum (`Folded(0)`) at every position of batch, rows and columns: bias, activation, residual, ...
    pub finish: Block,
    /// Writes of values of `finish`.
    pub stores: Vec<Store>,
}

impl Gemm {
    /// The type of its sums, which the type of its left operand decides.
    pub fn sum(&self, accesses: &[Access]) -> ElementType {
        sum_of(accesses, self.a)
    }
}

/// The type of sums of products whose left operand is this access.
fn sum_of(accesses: &[Access], left: u32) -> ElementType {
    match accesses.get(left as usize).map(|access| access.element) {
        Some(ElementType::U8) => ElementType::I32,
        _ => ElementType::F32,
    }
}

/// The right operand of a contraction.
#[derive(Clone, Debug, PartialEq)]
pub enum RightOperand {
    /// Packed when the model was compiled: at the address (over batch and taps) lie `ceil(columns/16)` panels of
    /// `depth * 16` elements, zero-padded columns included. They are f32, or bf16 where that is exact. Bytes have the depth padded to groups of four, which lie side
    /// by side; products of bytes are always packed.
    Packed(u32),
    /// Packed as bf16 when the model was compiled, two depths side by side: at the address lie `ceil(columns/16)` panels of
    /// `ceil(depth/2) * 32` elements, those beyond the matrix zero. The left operand is rounded to bf16 when it is read.
    Pairs(u32),
    /// Packed as codes: of four bits, when no more than sixteen numbers occur, or with scales ([`BookBlock`]).
    ///
    /// [`BookBlock`]: strang_runtime::kernels::book::BookBlock
    Coded {
        /// The address (over batch and taps) of `ceil(columns/16)` panels of `ceil(depth/8) * 16` words, twice as many for codes of
        /// eight bits.
        codes: u32,
        /// The numbers.
        book: u32,
        /// When each column has numbers of its own, how many at most are used; 0 otherwise.
        by_column: u8,
        /// What the numbers are scaled by.
        scales: Option<CodeScales>,
    },
    /// As it lies in memory: affine in batch, taps, depth and columns. The code generator reads it in place when its
    /// columns are contiguous, else packs it into scratch.
    Strided(u32),
}

/// The scales of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeScales {
    /// The address of a row of 16 for every panel and every `depths` depths, followed by one of zero points if there are any.
    pub rows: u32,
    /// Depths that have a scale in common.
    pub depths: usize,
    /// Bits of a code; those of eight bits stand for themselves, and are in no book.
    pub bits: u8,
    /// Whether there are zero points.
    pub have_zeros: bool,
}

impl RightOperand {
    /// Bits of a code; 4 for everything else.
    pub fn code_bits(&self) -> u8 {
        match self {
            RightOperand::Coded { scales: Some(scales), .. } => scales.bits,
            _ => 4,
        }
    }

    /// Words of codes, one below the other, that a depth takes.
    pub fn words_deep(&self, depth: &Size) -> Size {
        depth.ceil_div(&Size::from(book::DEPTHS as i64)) * Size::from(i64::from(self.code_bits() / 4))
    }

    /// The access whose address batch and taps move.
    pub fn access(&self) -> u32 {
        match self {
            RightOperand::Packed(access)
            | RightOperand::Pairs(access)
            | RightOperand::Coded { codes: access, .. }
            | RightOperand::Strided(access) => *access,
        }
    }
}

/// Attention: `softmax(finish(Q K^T)) V` for every position of `batch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Variables of independent attentions.
    pub batch: Vec<u32>,
    /// The variable of the query rows.
    pub rows: u32,
    /// The variable of the keys.
    pub keys: u32,
    /// The contracted variable of queries and keys.
    pub depth: u32,
    /// The variable of the value columns.
    pub columns: u32,
    /// Queries: affine in batch, rows, depth.
    pub q: u32,
    /// Keys: affine in batch, keys, depth.
    pub k: u32,
    /// Values: affine in batch, keys, columns.
    pub v: u32,
    /// The score from the product (`Folded(0)`) at every position of batch, rows and keys: scale, mask.
    pub score: Block,
    /// The value of `score` that softmax takes.
    pub score_value: u32,
    /// Computed from the sum (`Folded(0)`) at every position of batch, rows and columns.
    pub finish: Block,
    /// Writes of values of `finish`.
    pub stores: Vec<Store>,
}

/// A depthwise convolution: for every position of `batch`, `columns` (pixels of a row) and `channels`, the sum over `taps` in
/// order of input times weight: of floats, or of unsigned bytes times signed ones. Accesses are without guards.
#[derive(Clone, Debug, PartialEq)]
pub struct Depthwise {
    /// Outer variables: images and output rows.
    pub batch: Vec<u32>,
    /// The variable of the pixels of an output row.
    pub columns: u32,
    /// The variable of the channels, contiguous in every access.
    pub channels: u32,
    /// Contracted variables, in order.
    pub taps: Vec<u32>,
    /// The image.
    pub a: u32,
    /// The weights, best with taps outer and channels contiguous, each tap padded to a multiple of 16 channels.
    pub weights: u32,
    /// Computed from the sum (`Folded(0)`).
    pub finish: Block,
    /// Writes of values of `finish`.
    pub stores: Vec<Store>,
}

impl Depthwise {
    /// The distance of the weights of two taps, when they are contiguous along the channels and all taps lie at one
    /// distance, as the kernel of the runtime reads them.
    pub fn weight_stride(&self, kernel: &Kernel) -> Option<Size> {
        let weights = &kernel.accesses[self.weights as usize];
        let address = &weights.address;
        let image = &kernel.accesses[self.a as usize];
        let is_known = matches!(
            (image.element, weights.element),
            (ElementType::F32, ElementType::F32) | (ElementType::U8, ElementType::I8)
        );
        if !is_known
            || weights.guard.is_some()
            || !address.is_affine()
            || !address.coefficient(self.channels).is(1)
            || address.mentions(self.columns)
        {
            return None;
        }
        let (mut stride, mut inside) = (None, Size::ONE);
        for tap in self.taps.iter().rev() {
            let extent = kernel.variables[*tap as usize].extent();
            if extent.is(1) {
                continue;
            }
            let coefficient = address.coefficient(*tap);
            let stride = stride.get_or_insert_with(|| coefficient.clone());
            if coefficient != &*stride * &inside {
                return None;
            }
            inside = inside * extent;
        }
        Some(stride.unwrap_or(Size::ZERO))
    }

    /// The type of its sums, which the type of the image decides.
    pub fn sum(&self, accesses: &[Access]) -> ElementType {
        sum_of(accesses, self.a)
    }

    /// The loop nest that computes the same bits.
    pub fn nest(&self, accesses: &[Access]) -> Nest {
        let space = [&self.batch[..], &[self.columns, self.channels]].concat();
        let mut body = Block::default();
        let (mut a, mut b) = (body.push(Instruction::Load(self.a)), body.push(Instruction::Load(self.weights)));
        if self.sum(accesses) == ElementType::I32 {
            (a, b) =
                (body.push(Instruction::Cast(ElementType::I32, a)), body.push(Instruction::Cast(ElementType::I32, b)));
        }
        Nest {
            parallel: space.clone(),
            space,
            contracted: self.taps.clone(),
            body,
            folds: vec![Fold::MultiplyAdd { a, b, when: None }],
            finish: self.finish.clone(),
            stores: self.stores.clone(),
        }
    }
}

/// A product that fills an image, and the depthwise convolution that alone reads the image: the second follows the first,
/// and both have the outer variables and the channels in common. The image has no memory; code computes bands of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bands {
    /// The product. The last variable of its batch are the rows of the image, its rows the pixels, its columns the
    /// channels; it stores the image and nothing else.
    pub producer: Gemm,
    /// The convolution; the last variable of its batch are its rows.
    pub consumer: Depthwise,
    /// The image.
    pub image: Image,
    /// Channels of a tile; a multiple of 16.
    pub channels: i64,
    /// Rows of the convolution's result in a tile.
    pub rows: i64,
}

/// How an image that [`Bands`] compute would lie in its buffer. Distances are in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The buffer.
    pub buffer: u32,
    /// Channels, contiguous.
    pub channels: i64,
    /// Rows, without what is around them.
    pub height: i64,
    /// Pixels of a row, without what is around them.
    pub width: i64,
    /// The distance of pixels.
    pub pixel: i64,
    /// The distance of rows.
    pub row: i64,
    /// Rows of zeros above the first.
    pub top: i64,
    /// Pixels of zeros before the first.
    pub left: i64,
    /// The first row that is read, those of zeros counted.
    pub first: i64,
    /// Rows from what one row of the result reads to what the next does.
    pub step: i64,
    /// Rows that a row of the result reads.
    pub span: i64,
    /// Rows of the result.
    pub rows: i64,
}

impl Image {
    /// Rows of the image that rows of the result read.
    pub fn band(&self, rows: i64) -> i64 {
        (rows - 1) * self.step + self.span
    }

    /// Pixels of a row, those of zeros counted.
    pub fn pixels(&self) -> i64 {
        self.row / self.pixel
    }
}

/// The lanes of a sum along a row.
pub const LANES: i64 = 16;

/// Whether a float sum adds in sixteen lanes along the last contracted variable: it has as many positions, some access of the
/// body moves by one element with it, and none mentions it otherwise.
pub fn lane_sum(kernel: &Kernel, nest: &Nest, fold: &Fold) -> bool {
    let (Fold::Monoid { monoid: Monoid::Sum, value, .. }, Some(last)) = (fold, nest.contracted.last()) else {
        return false;
    };
    if kernel.variables[*last as usize].extent().as_constant().is_some_and(|extent| extent < LANES) {
        return false;
    }
    let elements = nest.body.elements(&kernel.accesses, &[]);
    if !elements.get(*value as usize).is_some_and(|element| element.is_float()) {
        return false;
    }
    let mut moves = false;
    for instruction in &nest.body.instructions {
        let Instruction::Load(access) = instruction else { continue };
        let address = &kernel.accesses[*access as usize].address;
        let coefficient = address.coefficient(*last);
        let plain = address.plus(&IndexExpr::variable(*last).times(&-coefficient.clone()));
        if plain.mentions(*last) || !(coefficient.is(0) || coefficient.is(1)) {
            return false;
        }
        moves |= coefficient.is(1);
    }
    moves
}

impl Block {
    /// Adds an instruction, or finds an equal one, and says its value.
    pub fn push(&mut self, instruction: Instruction) -> u32 {
        if let Some(found) = self.instructions.iter().position(|other| *other == instruction) {
            return found as u32;
        }
        self.instructions.push(instruction);
        self.instructions.len() as u32 - 1
    }

    /// The types of all values; `folded` gives those of `Folded`.
    pub fn elements(&self, accesses: &[Access], folded: &[ElementType]) -> Vec<ElementType> {
        let mut elements: Vec<ElementType> = Vec::with_capacity(self.instructions.len());
        for instruction in &self.instructions {
            let element = match instruction {
                Instruction::Load(access) => accesses[*access as usize].element,
                Instruction::Inside(_) => ElementType::Bool,
                Instruction::Index(_) | Instruction::Size(_) => ElementType::I64,
                Instruction::Literal(literal) => literal.element,
                Instruction::Unary(function, _) if function.is_predicate() => ElementType::Bool,
                Instruction::Binary(function, ..) if function.is_comparison() => ElementType::Bool,
                Instruction::Unary(_, value) | Instruction::Binary(_, value, _) | Instruction::Select(_, value, _) => {
                    elements[*value as usize]
                }
                Instruction::Cast(element, _) => *element,
                Instruction::Folded(fold) => folded[*fold as usize],
            };
            elements.push(element);
        }
        elements
    }
}
