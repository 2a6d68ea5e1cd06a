//! Schedules: how products are cut into blocks, as they were measured on a machine instead of chosen by rule.
//!
//! A schedule belongs to a CPU and a product's sizes. They are kept as lines of text, so that files of several machines and models
//! can be put together, and read:
//!
//! ```text
//! strang schedules 0.1
//! AMD EPYC 7B13, gemm 1x128x768 over 1x768 packed f32: 64 x 128
//! ```

use super::gemm::{Blocking, ceiling};
use crate::plan::kernel::{CodeScales, Gemm, Kernel, RightOperand};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::OnceLock};
use strang_ir::{ElementType, Size};

/// The first line of a file.
const HEADER: &str = "strang schedules 0.1";

/// The most rows or columns that are taken from a file: scratch memory is in proportion.
const LARGEST: i64 = 4096;

/// Heights of blocks that are tried: multiples of the tallest tiles of all levels, about.
const HEIGHTS: [i64; 5] = [26, 52, 78, 130, 208];
/// Widths of blocks that are tried.
const WIDTHS: [i64; 4] = [64, 128, 256, 512];

/// Measured schedules, by CPU and product.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedules {
    blocks: BTreeMap<String, Blocking>,
}

/// Why a text is no list of schedules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It starts otherwise.
    #[error("the first line is not `{HEADER}`")]
    Header,
    /// A line cannot be read.
    #[error("line {line} is not of the form `CPU, PRODUCT: ROWS x COLUMNS`: {text}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

impl Schedules {
    /// The block that was measured for a product of a kernel, if one was.
    pub fn of(&self, kernel: &Kernel, gemm: &Gemm) -> Option<Blocking> {
        if self.blocks.is_empty() { None } else { self.get(&product(kernel, gemm)?) }
    }

    /// The block of a product on this machine, if it was measured.
    pub fn get(&self, product: &str) -> Option<Blocking> {
        self.blocks.get(&on_this_cpu(product)).copied()
    }

    /// Sets the block of a product on this machine.
    pub fn set(&mut self, product: &str, block: Blocking) {
        self.blocks.insert(on_this_cpu(product), block);
    }

    /// Forgets what is known of a product on this machine.
    pub fn forget(&mut self, product: &str) {
        self.blocks.remove(&on_this_cpu(product));
    }
}

impl fmt::Display for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        self.blocks.iter().try_for_each(|(key, block)| writeln!(f, "{key}: {} x {}", block.rows, block.columns))
    }
}

impl FromStr for Schedules {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let mut lines = text.lines().enumerate();
        if lines.next().is_none_or(|(_, first)| first.trim_end() != HEADER) {
            return Err(ScheduleError::Header);
        }
        let mut blocks = BTreeMap::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let read = || {
                let (key, sizes) = line.rsplit_once(": ")?;
                let (rows, columns) = sizes.split_once(" x ")?;
                let [rows, columns] = [rows, columns].map(|size| size.trim().parse::<i64>().ok());
                let block = Blocking { rows: rows?, columns: columns? };
                let is_possible = (1..=LARGEST).contains(&block.rows)
                    && (16..=LARGEST).contains(&block.columns)
                    && block.columns % 16 == 0;
                (key.contains(", ") && is_possible).then(|| (key.to_owned(), block))
            };
            let error = || ScheduleError::Line { line: number + 1, text: line.to_owned() };
            let (key, block) = read().ok_or_else(error)?;
            blocks.insert(key, block);
        }
        Ok(Schedules { blocks })
    }
}

fn on_this_cpu(product: &str) -> String {
    static CPU: OnceLock<String> = OnceLock::new();
    format!("{}, {product}", CPU.get_or_init(cpu))
}

/// The CPU's name, as its system tells it, and else its kind.
fn cpu() -> String {
    let known = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = known.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let name = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    name.replace(',', " ")
}

/// What is told apart: the sizes of a product of floats, and how its right operand lies. `None` when a size is left open.
pub fn product(kernel: &Kernel, gemm: &Gemm) -> Option<String> {
    if gemm.sum(&kernel.accesses) != ElementType::F32 {
        return None;
    }
    let size = |variables: &[u32]| {
        let product: Size = variables.iter().map(|variable| kernel.variables[*variable as usize].extent()).product();
        product.as_constant()
    };
    let right = match gemm.b {
        RightOperand::Packed(access) => format!("packed {}", kernel.accesses[access as usize].element),
        RightOperand::Pairs(_) => "pairs of bf16".to_owned(),
        RightOperand::Coded { scales: Some(CodeScales { bits, depths, .. }), .. } => {
            format!("codes of {bits} bits, {depths} a scale")
        }
        RightOperand::Coded { .. } => "codes".to_owned(),
        RightOperand::Strided(_) => "computed".to_owned(),
    };
    Some(format!(
        "gemm {}x{}x{} over {}x{} {right}",
        size(&gemm.batch)?,
        size(&[gemm.rows])?,
        size(&[gemm.columns])?,
        size(&gemm.taps)?,
        size(&[gemm.depth])?
    ))
}

/// Blocks that are worth a measurement, the same for the same sizes: some heights by some widths, each cutting a product
/// into equal parts.
pub fn candidates(kernel: &Kernel, gemm: &Gemm, tile_columns: i64) -> Vec<Blocking> {
    let extent = |variable: u32| kernel.variables[variable as usize].extent().as_constant().unwrap_or(1).max(1);
    let part = |extent: i64, most: i64| ceiling(extent, ceiling(extent, most));
    let (rows, columns) = (extent(gemm.rows), extent(gemm.columns));
    let mut blocks = Vec::new();
    for height in HEIGHTS {
        for width in WIDTHS {
            let columns = ceiling(part(columns, width), tile_columns) * tile_columns;
            let block = Blocking { rows: part(rows, height), columns };
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_and_other_machines_keep_theirs() {
        let mut schedules: Schedules =
            "strang schedules 0.1\nAnother CPU, gemm 1x1x16 over 1x8 packed f32: 1 x 64\n".parse().unwrap();
        let product = "gemm 1x128x768 over 1x768 packed f32";
        assert_eq!(schedules.get("gemm 1x1x16 over 1x8 packed f32"), None);
        schedules.set(product, Blocking { rows: 64, columns: 128 });
        let read: Schedules = schedules.to_string().parse().unwrap();
        assert_eq!(read, schedules);
        assert_eq!(read.get(product), Some(Blocking { rows: 64, columns: 128 }));
        assert!(read.to_string().contains("Another CPU"));
        schedules.forget(product);
        assert_eq!(schedules.get(product), None);
        assert_ne!(schedules, Schedules::default());
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        assert_eq!("".parse::<Schedules>(), Err(ScheduleError::Header));
        for line in [
            "a",
            "a, b: 4",
            "a, b: 0 x 16",
            "a, b: 4 x 20",
            "a: 4 x 16",
            "a, b: 4 x 8192",
            "a, b: 4 x 99999999999999999999",
        ] {
            let text = format!("{HEADER}\n\n{line}\n");
            let error = ScheduleError::Line { line: 3, text: line.to_owned() };
            assert_eq!(text.parse::<Schedules>(), Err(error));
        }
    }
}
