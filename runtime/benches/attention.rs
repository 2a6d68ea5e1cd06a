//! Speed of the attention kernel on one core: one head of several that lie side by side, queries in blocks of 64.
//!
//! `cargo bench -p strang-runtime --bench attention`; throughput in "elements" is floating-point operations of the two
//! products, so Gelem/s is GFLOP/s; the exponentials come on top.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use strang_runtime::kernels::attention::{AttentionBlock, attention_packed_len, attention_scratch};
use strang_runtime::kernels::gemm::FloatSlot;
use strang_runtime::kernels::{KernelTable, Level};

/// Heads that lie side by side in a row of Q, K and V, one of which is computed.
const HEADS: usize = 12;
/// Queries of a block.
const BLOCK_ROWS: usize = 64;

#[derive(Clone, Copy)]
struct Shape {
    queries: usize,
    keys: usize,
    depth: usize,
    causal: bool,
    packed: bool,
}

fn main() {
    let table = KernelTable::for_level(Level::detect().expect("a level this machine runs"));
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .configure_from_args();
    let mut group = criterion.benchmark_group("attention_f32");
    for (queries, keys, depth, causal) in [
        (128, 128, 64, false),
        (197, 197, 64, false),
        (512, 512, 64, false),
        (2048, 2048, 64, true),
        (1, 1024, 64, false),
    ] {
        for packed in [false, true] {
            let shape = Shape { queries, keys, depth, causal, packed };
            let visible = if causal { queries * keys / 2 } else { queries * keys };
            group.throughput(Throughput::Elements((4 * visible * depth) as u64));
            let (causal, packed) = (if causal { " causal" } else { "" }, if packed { " packed" } else { "" });
            let mut run = head(table, shape);
            group.bench_function(format!("{queries}x{keys}x{depth}{causal}{packed}"), |bencher| bencher.iter(&mut run));
        }
    }
    group.finish();
    criterion.final_summary();
}

/// What computes one head of that shape.
fn head(table: &'static KernelTable, shape: Shape) -> impl FnMut() {
    let Shape { queries, keys, depth, causal, packed } = shape;
    let stride = depth * HEADS;
    let fill =
        |rows: usize| -> Vec<f32> { (0..rows * stride).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect() };
    let (q, k, v) = (fill(queries), fill(keys), fill(keys));
    let mut out = vec![0.0f32; queries * stride];
    let mut scratch = vec![0.0f32; attention_scratch(BLOCK_ROWS, keys, depth, depth) / size_of::<f32>()];
    let mut panels = vec![0.0f32; attention_packed_len(keys, depth, depth)];
    move || {
        let mut block = AttentionBlock {
            q: q.as_ptr(),
            q_row_stride: stride as i64,
            q_depth_stride: 1,
            k: k.as_ptr(),
            k_row_stride: stride as i64,
            k_depth_stride: 1,
            v: v.as_ptr(),
            v_row_stride: stride as i64,
            packed: std::ptr::null(),
            rows: 0,
            keys: keys as u64,
            depth: depth as u64,
            columns: depth as u64,
            scale: FloatSlot(0.125),
            mask: std::ptr::null(),
            mask_row_stride: 0,
            mask_column_stride: 0,
            causal_offset: i64::MAX,
            out: out.as_mut_ptr(),
            out_row_stride: stride as i64,
            scratch: scratch.as_mut_ptr(),
        };
        if packed {
            // SAFETY: keys, values and panels have the sizes the block states.
            unsafe { (table.attention_pack)(&block, panels.as_mut_ptr()) };
            block.packed = panels.as_ptr();
        }
        for row in (0..queries).step_by(BLOCK_ROWS) {
            block.rows = BLOCK_ROWS.min(queries - row) as u64;
            block.q = q[row * stride..].as_ptr();
            block.out = out[row * stride..].as_mut_ptr();
            if causal {
                block.causal_offset = row as i64;
            }
            // SAFETY: all arrays have the sizes the block states.
            unsafe { (table.attention_f32)(&block) };
        }
    }
}
