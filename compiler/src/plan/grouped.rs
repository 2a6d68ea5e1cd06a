//! Convolutions in groups of few channels: the kernel of depthwise convolutions computes them with whole groups in its lanes, where
//! a tile of a product would have a few columns.

use super::{
    build::KernelBuilder,
    contract::Roles,
    kernel::{Block, Depthwise, Store},
    lower::{Planner, estimate},
};
use strang_ir::{Atom, ElementType, IndexExpr, Size};

/// Whether there is a kernel for groups of so many channels: whole groups have to fill the lanes.
pub fn fill_lanes(members: i64) -> bool {
    matches!(members, 2 | 4 | 8)
}

/// Where output channel `channels` reads input channel `member` of its group of so many.
pub fn in_groups(channels: u32, member: u32, members: i64) -> IndexExpr {
    let group = Atom::FloorDiv(Box::new(IndexExpr::variable(channels)), Size::from(members));
    IndexExpr::atom(group).times(&Size::from(members)).plus(&IndexExpr::variable(member))
}

impl Planner<'_> {
    /// A product of groups of two, four or eight channels with weights, as the convolution that it is: its channels are those of all
    /// groups. `None` leaves the kernel as it is.
    pub fn grouped(
        &mut self,
        kernel: &mut KernelBuilder,
        roles: &Roles,
        [a, b]: [u32; 2],
        (block, stores): (&Block, &[Store]),
    ) -> Option<Depthwise> {
        let (group, idle): (Vec<u32>, Vec<u32>) = roles.shared.iter().partition(|v| !kernel.size_of(**v).is(1));
        let ([group], [channel], Some(member)) = (&group[..], &roles.columns[..], roles.contracted.last()) else {
            return None;
        };
        let members = kernel.size_of(*channel).as_constant().filter(|members| fill_lanes(*members))?;
        let is_float = |access: u32| kernel.accesses[access as usize].element == ElementType::F32;
        let address = kernel.accesses[a as usize].address.clone();
        let weights = &kernel.accesses[b as usize].address;
        let fits = kernel.size_of(*member).is(members)
            && is_float(a)
            && is_float(b)
            && address.is_affine()
            && address.coefficient(*group).is(members)
            && address.coefficient(*member).is(1)
            && !address.mentions(*channel)
            && kernel.size_of(*group).as_constant().is_some()
            && weights.coefficient(*channel).as_constant().is_some();
        if !fits || !self.knows_weights(kernel, b, &roles.contracted) {
            return None;
        }
        // Images, then rows, then pixels; what has one position is none of them.
        let (mut rows, single): (Vec<u32>, Vec<u32>) = roles.rows.iter().partition(|v| !kernel.size_of(**v).is(1));
        rows.sort_by_key(|v| std::cmp::Reverse(estimate(&address.coefficient(*v))));
        let columns = rows.pop()?;
        // As if each channel read the one of its own place.
        kernel.accesses[a as usize].address = address.plus(&IndexExpr::variable(*channel));
        if !kernel.merge(*group, *channel, &[block]) {
            kernel.accesses[a as usize].address = address;
            return None;
        }
        let place = &mut kernel.accesses[a as usize].address;
        let own = IndexExpr::variable(*channel).plus(&IndexExpr::variable(*member)).times(&Size::from(-1));
        *place = place.plus(&own).plus(&in_groups(*channel, *member, members));
        let weights = self.pack_taps(kernel, b, &roles.contracted, *channel);
        Some(Depthwise {
            batch: [idle, single, rows].concat(),
            columns,
            channels: *channel,
            taps: roles.contracted.clone(),
            a,
            weights,
            finish: block.clone(),
            stores: stores.to_vec(),
        })
    }
}
