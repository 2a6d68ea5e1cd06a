//! Attention: blocks of query rows of one head, on the fused kernel of the table or on its parts.
//!
//! A tile is a block of rows at one position of the batch. Keys and values that several blocks share are packed once for
//! all tiles of a head that a worker takes in a row. Scores that are a scale and a mask go through the fused kernel; any
//! others are computed in steps: a product, the score as a job, the softmax of rows, a product. Bits do not depend on how
//! rows are cut into blocks, so they do not depend on who computes a tile.

mod fused;
mod matrix;
mod parts;
mod score;

use super::{
    chunks::{Chunks, even},
    emit::Emitter,
    epilogue::{TileVariables, is_plain},
    rows::folded_values,
    strip::{Job, Row, Sink},
    tile::decode,
};
use crate::plan::kernel::{Attention, Block, Store};
use cranelift_codegen::ir::{InstBuilder, Value, condcodes::IntCC};
use fused::Fused;
use matrix::Matrix;
use parts::Parts;
use score::Score;
use strang_ir::{ElementType, Size};
use strang_runtime::kernels::Function;

/// An attention that is compiled, with what both ways to compute it share.
struct Plan<'a> {
    attention: &'a Attention,
    /// Rows of a block.
    chunk: Size,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    /// Keys and values in panels, where they are packed.
    packed: Option<Packed>,
    output: Output,
}

/// The panels of the keys and the values of a head, one after the other as the fused kernel wants them.
#[derive(Clone, Copy)]
struct Packed {
    keys: Value,
    values: Value,
}

/// Where sums go.
enum Output {
    /// To memory, through an access: they are all that is stored.
    Direct(u32),
    /// To scratch memory, for the finish to read.
    Rows(Value),
}

/// How a block is computed.
enum Method {
    Fused(Fused),
    Parts(Parts),
}

/// Emits an attention; says the number of tiles and the kind of kernel.
pub fn emit(emitter: &mut Emitter<'_>, attention: &Attention) -> (Size, &'static str) {
    let counts = [attention.keys, attention.depth, attention.columns].map(|variable| emitter.extent(variable));
    emitter.loads_may_move = counts.iter().all(|count| count.lower_bound(0).is_some_and(|least| least > 0));
    let score = Score::new(emitter, attention);
    let most = if score.is_some() { fused::ROWS } else { parts::ROWS };
    let plan = Plan::new(emitter, attention, most, score.is_none());
    let method = match score {
        Some(score) => Method::Fused(Fused::new(emitter, &plan, score)),
        None => Method::Parts(Parts::new(emitter, &plan)),
    };
    let cuts = attention.batch.iter().map(|variable| (*variable, Size::ONE));
    let chunks = Chunks::new(emitter, cuts.chain([(attention.rows, plan.chunk.clone())]));
    let blocks = plan.blocks(emitter);
    let nothing = emitter.int(-1);
    let range = (emitter.lo, emitter.hi, 1);
    emitter.fold(
        range,
        &[nothing],
        |_| {},
        |emitter, tile, prepared| {
            let ranges = chunks.ranges(emitter, tile);
            for (variable, (position, _)) in attention.batch.iter().zip(&ranges) {
                emitter.bind(*variable, *position);
            }
            let head = decode(emitter, &[Size::ONE, blocks], tile)[0];
            if plan.prepares() {
                let changes = emitter.builder.ins().icmp(IntCC::NotEqual, head, prepared[0]);
                emitter.when(changes, |emitter| plan.prepare(emitter));
            }
            let rows = ranges[attention.batch.len()];
            plan.q.copy(emitter, rows);
            match &method {
                Method::Fused(fused) => fused.run(emitter, &plan, rows),
                Method::Parts(parts) => parts.run(emitter, &plan, rows),
            }
            plan.finish(emitter, rows);
            attention.batch.iter().for_each(|variable| emitter.unbind(*variable));
            vec![head]
        },
    );
    (chunks.grid(), "attention")
}

impl<'a> Plan<'a> {
    /// In blocks of at most `most` rows.
    fn new(emitter: &mut Emitter<'_>, attention: &'a Attention, most: i64, packs: bool) -> Self {
        let Attention { rows, keys, depth, columns, .. } = attention;
        let chunk = even(&emitter.extent(*rows), most, 1);
        let [key_count, depth_count, column_count] = [keys, depth, columns].map(|variable| emitter.extent(*variable));
        let q = Matrix::new(emitter, attention.q, [*rows, *depth], &chunk);
        let k = Matrix::new(emitter, attention.k, [*keys, *depth], &key_count);
        let v = Matrix::new(emitter, attention.v, [*keys, *columns], &key_count);
        let output = match direct(emitter, attention) {
            Some(access) => Output::Direct(access),
            None => Output::Rows(emitter.reserve(&(&chunk * &column_count * Size::from(4)))),
        };
        let mut plan = Plan { attention, chunk, q, k, v, packed: None, output };
        if packs || !plan.blocks(emitter).is(1) || !plan.v.is_contiguous(emitter) {
            // Panels of 16 f32, so that what follows them needs no alignment.
            let panels = |columns: &Size| columns.ceil_div(&Size::from(16)) * Size::from(64);
            let (key_bytes, value_bytes) = (panels(&key_count) * &depth_count, panels(&column_count) * &key_count);
            let keys = emitter.reserve(&(&key_bytes + &value_bytes));
            let key_bytes = emitter.size(&key_bytes);
            let values = emitter.builder.ins().iadd(keys, key_bytes);
            plan.packed = Some(Packed { keys, values });
        }
        plan
    }

    /// The number of blocks of a head.
    fn blocks(&self, emitter: &Emitter<'_>) -> Size {
        emitter.extent(self.attention.rows).ceil_div(&self.chunk)
    }

    /// Whether something is done once for all blocks of a head.
    fn prepares(&self) -> bool {
        self.packed.is_some() || self.k.is_copied() || self.v.is_copied()
    }

    /// Makes the keys and values of a head ready.
    fn prepare(&self, emitter: &mut Emitter<'_>) {
        let (zero, [keys, depth, columns]) = (emitter.int(0), self.counts(emitter));
        self.k.copy(emitter, (zero, keys));
        self.v.copy(emitter, (zero, keys));
        let Some(packed) = self.packed else { return };
        let (source, [row, element]) = (self.k.start(emitter, zero), self.k.strides(emitter));
        emitter.call(Function::PackB, &[source, element, row, depth, keys, packed.keys]);
        let (source, [row, element]) = (self.v.start(emitter, zero), self.v.strides(emitter));
        emitter.call(Function::PackB, &[source, row, element, keys, columns, packed.values]);
    }

    /// The numbers of keys, of elements of a key, and of columns.
    fn counts(&self, emitter: &mut Emitter<'_>) -> [Value; 3] {
        let Attention { keys, depth, columns, .. } = self.attention;
        [keys, depth, columns].map(|variable| {
            let extent = emitter.extent(*variable);
            emitter.size(&extent)
        })
    }

    /// Where the sums of rows from `low` on go.
    fn output(&self, emitter: &mut Emitter<'_>, low: Value) -> Value {
        match self.output {
            Output::Direct(access) => emitter.address_at(access, self.attention.rows, low),
            Output::Rows(memory) => memory,
        }
    }

    /// The distance of two rows of sums.
    fn output_stride(&self, emitter: &mut Emitter<'_>) -> Value {
        let stride = match self.output {
            Output::Direct(access) => emitter.kernel.accesses[access as usize].address.coefficient(self.attention.rows),
            Output::Rows(_) => emitter.extent(self.attention.columns),
        };
        emitter.size(&stride)
    }

    /// What happens to the sums of a block, where they are not stored as they come.
    fn finish(&self, emitter: &mut Emitter<'_>, rows: (Value, Value)) {
        let Output::Rows(memory) = self.output else { return };
        let Attention { finish, stores, columns, .. } = self.attention;
        let width = emitter.extent(*columns);
        let sinks = |_| stores.iter().copied().map(Sink::Memory).collect();
        self.each_row(emitter, rows, (memory, &width), (finish, *columns), sinks, |_, _| {});
    }

    /// For every row of a block in scratch memory, rows of `stride` elements: runs a block, which reads the row as the
    /// folded value, over a variable; then `after`.
    fn each_row(
        &self,
        emitter: &mut Emitter<'_>,
        (low, high): (Value, Value),
        (memory, stride): (Value, &Size),
        (block, variable): (&Block, u32),
        sinks: impl Fn(Row) -> Vec<Sink>,
        after: impl Fn(&mut Emitter<'_>, Row),
    ) {
        let folded = folded_values(block);
        let extent = emitter.extent(variable);
        emitter.loop_over(
            self.attention.rows,
            (low, high, 1),
            &[memory],
            |_| {},
            |emitter, base| {
                let row = Row { base: base[0], element: ElementType::F32 };
                let given = folded.iter().map(|value| (*value, row)).collect();
                let job = Job { block, variable, given, sinks: sinks(row) };
                let range = (emitter.int(0), emitter.size(&extent));
                emitter.run_in_strips(&job, &[ElementType::F32], range);
                after(emitter, row);
                let bytes = emitter.size(&(stride * &Size::from(4)));
                vec![emitter.builder.ins().iadd(base[0], bytes)]
            },
        );
    }
}

/// The access through which the sums may be stored as they come.
fn direct(emitter: &Emitter<'_>, attention: &Attention) -> Option<u32> {
    let ([store], [folded]) = (attention.stores.as_slice(), &folded_values(&attention.finish)[..]) else { return None };
    let Store { access, value, combine: None } = *store else { return None };
    let tile = TileVariables { rows: attention.rows, columns: attention.columns };
    (value == *folded && is_plain(emitter, access, tile)).then_some(access)
}
