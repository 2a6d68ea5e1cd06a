//! Compiles one kernel, runs it on plain memory, and compares every byte with the evaluation of its definition.

use memmap2::MmapMut;
use rustc_hash::FxHashSet;
use strang_compiler::{
    codegen::{
        Target, compile,
        emit::{Emitted, Slot},
        emit_kernel,
    },
    plan::{
        evaluate::{EvaluateError, evaluate},
        kernel::{Access, Block, Body, Kernel, LoopVariable, Nest},
    },
};
use strang_ir::{Bindings, ElementType, IndexExpr, Size, Tensor};
use strang_runtime::{
    kernels::{KernelTable, Level},
    program::{Address, Context, Cost, KernelFunction, status},
};

/// Bytes on both sides of every buffer that must stay as they are.
const MARGIN: usize = 64;
const POISON: u8 = 0xa5;

/// Memory aligned to 64 bytes with poisoned margins.
pub struct Aligned {
    words: Vec<u64>,
    start: usize,
    bytes: usize,
}

impl Aligned {
    pub fn new(content: &[u8]) -> Self {
        Self::beside(content, 0)
    }

    /// Memory that starts so many bytes after a multiple of 64.
    fn beside(content: &[u8], shift: usize) -> Self {
        let words = vec![u64::from_ne_bytes([POISON; 8]); (content.len() + 2 * MARGIN + 64 + shift) / 8 + 1];
        let start = MARGIN + (words.as_ptr().cast::<u8>()).align_offset(64) + shift;
        let mut memory = Aligned { words, start, bytes: content.len() };
        memory.all_mut()[start..start + content.len()].copy_from_slice(content);
        memory
    }

    fn all_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    pub fn content(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[self.start..self.start + self.bytes]
    }

    pub fn address(&mut self) -> u64 {
        let start = self.start;
        self.all_mut()[start..].as_mut_ptr() as u64
    }

    fn margins_hold(&self) -> bool {
        let all: &[u8] = bytemuck::cast_slice(&self.words);
        all[..self.start].iter().chain(&all[self.start + self.bytes..]).all(|byte| *byte == POISON)
    }
}

/// A compiled kernel that can be called.
pub struct Callable {
    code: memmap2::Mmap,
    slots: Vec<Slot>,
    /// The buffers in which elements must be aligned.
    handed: FxHashSet<u32>,
    grid: Size,
    scratch: Size,
    level: Level,
}

impl Callable {
    pub fn new(kernel: &Kernel, target: &Target) -> Result<Self, String> {
        let emitted = emit_kernel(kernel, target).map_err(|error| error.to_string())?.ok_or("a builtin")?;
        let code = compile::compile(&emitted.code, &kernel.label, target).map_err(|error| error.to_string())?;
        let mut map = MmapMut::map_anon(code.len().max(1)).unwrap();
        map[..code.len()].copy_from_slice(&code);
        let code = map.make_exec().unwrap();
        let level = Level::detect().unwrap();
        let Emitted { slots, handed, grid, scratch, .. } = emitted;
        Ok(Callable { code, slots, handed, grid, scratch, level })
    }

    /// For a level of this machine, with the kernels of that level.
    pub fn at_level(kernel: &Kernel, level: Level) -> Result<Self, String> {
        let name = match level {
            Level::Portable => "x86-64-v2",
            Level::Avx2 => "x86-64-v3",
            Level::Avx512 => "x86-64-v4",
        };
        let target = if cfg!(target_arch = "x86_64") { Target::named(name) } else { Target::host() };
        let callable = Callable::new(kernel, &target.map_err(|error| error.to_string())?)?;
        Ok(Callable { level, ..callable })
    }

    /// The number of tiles.
    pub fn tiles(&self, bindings: &Bindings) -> u64 {
        self.grid.eval(bindings).unwrap() as u64
    }

    /// Runs all tiles, the last first when `backwards`.
    pub fn run(&self, kernel_memory: &mut [Aligned], bindings: &Bindings, counters: &[i64], backwards: bool) -> u32 {
        let tables: Vec<Vec<i64>> = self
            .slots
            .iter()
            .map(|slot| match slot {
                Slot::Table(table) => table.to_vec(),
                _ => Vec::new(),
            })
            .collect();
        let step: Vec<u64> = self
            .slots
            .iter()
            .zip(&tables)
            .map(|(slot, table)| match slot {
                Slot::Address(Address { buffer, offset }) => {
                    kernel_memory[*buffer as usize].address() + offset.eval(bindings).unwrap() as u64
                }
                Slot::Size(size) => size.eval(bindings).unwrap() as u64,
                Slot::Table(_) => table.as_ptr() as u64,
            })
            .collect();
        let mut context = Context {
            kernels: std::ptr::from_ref(KernelTable::for_level(self.level)).cast(),
            counters: [0; 4],
            worker: 0,
        };
        for (place, counter) in context.counters.iter_mut().zip(counters) {
            *place = *counter as u64;
        }
        let mut scratch = Aligned::new(&vec![0xff; self.scratch.eval(bindings).unwrap() as usize]);
        let grid = self.grid.eval(bindings).unwrap() as u64;
        // SAFETY: the code was generated for this signature and this machine.
        let function: KernelFunction = unsafe { std::mem::transmute(self.code.as_ptr()) };
        let mut call = |lo: u64, hi: u64| {
            let scratch_address = scratch.address() as *mut u8;
            // SAFETY: the arguments are what the emitted kernel asks for, and the memory outlives the call.
            unsafe { function(&context, step.as_ptr(), scratch_address, lo, hi) }
        };
        let mut result = status::OK;
        if backwards {
            for tile in (0..grid).rev() {
                result = result.max(call(tile, tile + 1));
            }
        } else {
            result = call(0, grid);
        }
        assert!(scratch.margins_hold(), "a write outside the scratch memory");
        result
    }
}

/// Compiles, runs and compares. `exact` compares bits (NaN equal to NaN); else f32 buffers may differ by a few ulp.
pub fn check(kernel: &Kernel, memory: &[Vec<u8>], bindings: &Bindings, counters: &[i64]) -> Result<(), String> {
    check_with(kernel, memory, bindings, counters, &Target::host().unwrap(), 0)
}

/// [`check`] for a target, with f32 results that may differ by `ulps`.
pub fn check_with(
    kernel: &Kernel,
    memory: &[Vec<u8>],
    bindings: &Bindings,
    counters: &[i64],
    target: &Target,
    ulps: u32,
) -> Result<(), String> {
    let mut expected = memory.to_vec();
    let evaluated = evaluate(kernel, &mut expected, bindings, counters);
    let callable = Callable::new(kernel, target)?;
    let mut forwards: Option<Vec<Aligned>> = None;
    for backwards in [false, true] {
        // The second time whatever no kernel of the runtime is given lies at an odd address.
        let shift = |buffer: u32| usize::from(backwards && !callable.handed.contains(&buffer));
        let place = |(buffer, bytes): (u32, &Vec<u8>)| Aligned::beside(bytes, shift(buffer));
        let mut found: Vec<Aligned> = (0..).zip(memory).map(place).collect();
        let status = callable.run(&mut found, bindings, counters, backwards);
        match &evaluated {
            Err(EvaluateError::Index) if status == status::INDEX_OUT_OF_RANGE => continue,
            Ok(()) if status == status::OK => {}
            other => return Err(format!("status {status}, but evaluation gave {other:?}")),
        }
        for (buffer, (found, expected)) in found.iter().zip(&expected).enumerate() {
            if !found.margins_hold() {
                return Err(format!("a write outside buffer {buffer}"));
            }
            // The image between two kernels in bands is written by their definition alone.
            if matches!(&kernel.body, Body::Bands(bands) if bands.image.buffer as usize == buffer) {
                continue;
            }
            let element = kernel
                .accesses
                .iter()
                .find(|access| kernel.pointers[access.pointer as usize].buffer as usize == buffer)
                .map_or(ElementType::U8, |access| access.element);
            compare(element, found.content(), expected, ulps).map_err(|text| format!("buffer {buffer}: {text}"))?;
        }
        if forwards.iter().flatten().zip(&found).any(|(a, b)| a.content() != b.content()) {
            return Err("the order of tiles changes bits".to_owned());
        }
        forwards = Some(found);
    }
    Ok(())
}

fn compare(element: ElementType, found: &[u8], expected: &[u8], ulps: u32) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let size = element.bytes().unwrap_or(1);
    for (position, (found, expected)) in found.chunks(size).zip(expected.chunks(size)).enumerate() {
        if found == expected {
            continue;
        }
        let text = |bytes: &[u8]| match Tensor::from_bytes(element, &[bytes.len() / size], bytes) {
            Ok(tensor) if element.bytes().is_some() => format!("{:?}", tensor.to_f64()),
            _ => format!("{bytes:?}"),
        };
        let (x, y) = match Tensor::from_bytes(element, &[1], found)
            .and_then(|found| Ok((found.to_f64()[0], Tensor::from_bytes(element, &[1], expected)?.to_f64()[0])))
        {
            Ok(both) if element.is_float() => both,
            _ => return Err(format!("element {position} is {}, not {}", text(found), text(expected))),
        };
        let close = (x - y).abs() <= f64::from(ulps) * f64::from(f32::EPSILON) * y.abs().max(1.);
        if !(x.is_nan() && y.is_nan() || ulps > 0 && (close || x == y)) {
            return Err(format!("element {position} is {x:?}, not {y:?}"));
        }
    }
    Ok(())
}

/// A kernel whose buffers are its pointers, in order.
pub fn kernel(variables: &[Size], accesses: Vec<Access>, body: Body) -> Kernel {
    let pointers = accesses.iter().map(|access| access.pointer + 1).max().unwrap_or(0);
    Kernel {
        label: "test".into(),
        variables: variables.iter().cloned().map(LoopVariable::Loop).collect(),
        pointers: (0..pointers).map(|buffer| Address { buffer, offset: Size::ZERO }).collect(),
        accesses,
        body,
        cost: Cost::default(),
    }
}

/// An access without guard: strides by variable, and an offset.
pub fn access(pointer: u32, element: ElementType, strides: &[(u32, i64)], offset: i64) -> Access {
    let terms = strides.iter().map(|(variable, stride)| (strang_ir::Atom::Variable(*variable), Size::from(*stride)));
    Access { pointer, element, address: IndexExpr::new(terms, offset.into()), guard: None, checked: Vec::new() }
}

/// A map over a space that is all parallel.
pub fn map(space: &[u32], body: Block, stores: Vec<strang_compiler::plan::kernel::Store>) -> Body {
    Body::Nest(Nest {
        space: space.to_vec(),
        parallel: space.to_vec(),
        contracted: Vec::new(),
        body,
        folds: Vec::new(),
        finish: Block::default(),
        stores,
    })
}

/// Bytes of f32.
pub fn f32s(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}
