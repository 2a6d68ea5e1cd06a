//! Patches: windows of an image that do not overlap, as the first layers of vision transformers read them.
//!
//! Read where they lie, the rows of a product are those patches of one row of the image alone, seldom enough for a tile, and all
//! weights pass by for each. Copied once, which takes no more memory than the image, all patches are rows and all of a patch
//! is one depth.

use super::{
    build::KernelBuilder,
    contract::{FEW_CHANNELS, Roles},
    windows::Coordinate,
};
use strang_ir::{IndexExpr, Size};

/// So many rows fill tiles: weights pass by often enough.
const MANY_ROWS: i64 = 16;
/// So many columns are worth a copy, each element of which takes as long as tens of products.
const MANY_COLUMNS: i64 = 128;
/// So many weights do not stay in the first-level cache.
const MANY_WEIGHTS: i64 = 1 << 14;

/// The coordinates of a copy of the patches that the left operand of a product with weights reads: rows, then what is contracted as
/// it lies in the image. None if they overlap, or if they are read as well where they are.
pub fn patches(kernel: &KernelBuilder, access: u32, roles: &Roles) -> Option<Vec<Coordinate>> {
    let address = &kernel.accesses[access as usize].address;
    let extent = |variable: u32| kernel.size_of(variable).as_constant();
    let product =
        |variables: &[u32]| variables.iter().map(|variable| kernel.size_of(*variable)).product::<Size>().as_constant();
    let (columns, depth) = (product(&roles.columns)?, product(&roles.contracted)?);
    if !roles.shared.is_empty() || columns < MANY_COLUMNS || columns.saturating_mul(depth) < MANY_WEIGHTS {
        return None;
    }
    let mut variables = Vec::with_capacity(roles.rows.len() + roles.contracted.len());
    for variable in roles.rows.iter().chain(&roles.contracted) {
        if !kernel.size_of(*variable).is(1) {
            variables.push((address.coefficient(*variable).as_constant()?, *variable));
        }
    }
    variables.sort_unstable();
    let is_row = |variable: u32| roles.rows.contains(&variable);
    // Elements up to the farthest that is read so far, rows that are one variable in place, and where they end.
    let (mut covered, mut merged, mut end) = (1i64, 1, 0);
    for (stride, variable) in &variables {
        if *stride < covered {
            return None;
        }
        // The extent of the greatest distance may be unknown.
        let extent = extent(*variable);
        let last = extent.map_or(i64::MAX, |extent| stride.saturating_mul(extent.saturating_sub(1)));
        covered = covered.saturating_add(last);
        if is_row(*variable) {
            let before = if *stride == end { merged } else { 1i64 };
            merged = before.saturating_mul(extent.unwrap_or(1));
            end = last.saturating_add(*stride);
            if merged >= MANY_ROWS {
                return None;
            }
        }
    }
    let rows: Vec<u32> = roles.rows.iter().copied().filter(|row| !kernel.size_of(*row).is(1)).collect();
    let first = variables.iter().position(|(_, variable)| is_row(*variable))?;
    let last = variables.iter().rposition(|(_, variable)| is_row(*variable))?;
    let are_apart = variables[first..last].iter().any(|(_, variable)| !is_row(*variable));
    let contracted = variables.iter().rev().map(|(_, variable)| *variable).filter(|variable| !is_row(*variable));
    let coordinate = |variable: u32| Coordinate {
        size: kernel.size_of(variable),
        expression: IndexExpr::variable(variable),
        variable,
    };
    are_apart.then(|| rows.iter().copied().chain(contracted).map(coordinate).collect())
}

/// What is contracted, as it lies in the image, if few channels lie far apart and more pixels side by side: these are a better depth
/// than the channels. Every run of depths costs as much as several depths.
pub fn as_they_lie(kernel: &KernelBuilder, access: u32, contracted: &[u32]) -> Option<Vec<u32>> {
    let address = &kernel.accesses[access as usize].address;
    let extent = |variable: u32| kernel.size_of(variable).as_constant();
    let mut variables = Vec::with_capacity(contracted.len());
    for variable in contracted {
        variables.push((address.coefficient(*variable).as_constant()?, *variable));
    }
    let channels = extent(*contracted.last()?).filter(|extent| *extent < FEW_CHANNELS)?;
    variables.sort_by_key(|(stride, _)| std::cmp::Reverse(*stride));
    let (stride, nearest) = *variables.last()?;
    let is_better = stride == 1 && extent(nearest).is_some_and(|extent| extent > channels);
    is_better.then(|| variables.into_iter().map(|(_, variable)| variable).collect())
}
