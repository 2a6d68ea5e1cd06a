//! Other ways of reading. The examples of rules read their operands plainly; models read them through slices, quotients,
//! tables and strides as well, since views are composed into their readers. A disguised example computes something else
//! from arrays of other shapes, through such reads: where a rule still applies, its law has to hold.

use super::laws::Draw;
use petgraph::stable_graph::NodeIndex;
use strang_ir::{Axis, Function, IndexExpr, Module, Op, Size, Variable};

/// How the positions along an axis are found from those that a reader asked for.
#[derive(Clone, Copy)]
enum Way {
    /// Some positions further on, in a longer array.
    Further(i64),
    /// Every second position.
    EverySecond,
    /// From the end.
    Backwards,
    /// Each position twice.
    Twice,
    /// The first positions again and again.
    Repeated(i64),
    /// By a table, of positions in any order, some of them missing and some there twice.
    Table(u64),
}

impl Way {
    fn any(draw: &mut Draw) -> Self {
        match draw.below(6) {
            0 => Way::Further(1 + draw.below(3) as i64),
            1 => Way::EverySecond,
            2 => Way::Backwards,
            3 => Way::Twice,
            4 => Way::Repeated(1 + draw.below(3) as i64),
            _ => Way::Table(draw.next()),
        }
    }

    /// A way that stays inside the array.
    fn inside(draw: &mut Draw) -> Self {
        if draw.below(2) == 0 { Way::Backwards } else { Way::Table(draw.next()) }
    }

    /// The size of the axis that is read in place of one of `size` positions.
    fn size(self, size: i64) -> i64 {
        match self {
            Way::Further(distance) => size + distance + 1,
            Way::EverySecond => 2 * size,
            Way::Backwards | Way::Table(_) => size,
            Way::Twice => (size + 1) / 2,
            Way::Repeated(period) => period.min(size),
        }
    }

    fn position(self, expression: &IndexExpr, size: i64, variable_size: &dyn Fn(u32) -> Size) -> IndexExpr {
        match self {
            Way::Further(distance) => expression.plus_size(&distance.into()),
            Way::EverySecond => expression.times(&2.into()),
            Way::Backwards => expression.times(&(-1).into()).plus_size(&(size - 1).into()),
            Way::Twice => expression.floor_div(&2.into(), variable_size),
            Way::Repeated(period) => expression.remainder(&period.min(size).into(), variable_size),
            Way::Table(seed) => {
                let mut draw = Draw(seed);
                let table = (0..size).map(|_| draw.below(size as usize) as i64).collect();
                IndexExpr::table(table, expression.clone())
            }
        }
    }
}

/// Reads about half of the inputs and weights, and some of what is computed, in other ways. The sizes are known.
pub fn disguise(module: &mut Module, draw: &mut Draw) {
    let Module { parameters, functions, .. } = module;
    let function = &mut functions[0];
    for (number, node) in function.graph.node_indices().collect::<Vec<_>>().into_iter().enumerate() {
        let readers = function.readers(node.into());
        let plainly = |(reader, slot): &(NodeIndex, u32)| {
            let map = &function.graph[*reader].maps[*slot as usize];
            map.fill.is_none() && map.conditions.is_empty()
        };
        let rank = function.shape_of(node.into()).len();
        if rank == 0 || !readers.iter().all(plainly) || readers.is_empty() || draw.below(2) == 0 {
            continue;
        }
        let axis = draw.below(rank);
        let Some(size) = function.shape_of(node.into())[axis].as_constant().filter(|size| *size > 0) else { continue };
        let same = |other: &NodeIndex| function.graph[*other].op == function.graph[node].op;
        match function.graph[node].op {
            Op::Input(_) | Op::Param(_) if function.graph.node_indices().filter(same).count() > 1 => {}
            Op::Input(_) | Op::Param(_) if function.outputs.contains(&node.into()) => {}
            Op::Input(_) | Op::Param(_) => {
                let way = Way::any(draw);
                let other = Axis::new(format!("other{number}"), way.size(size));
                if let Op::Param(position) = function.graph[node].op {
                    parameters[position as usize].axes[axis] = other.clone();
                }
                let leaf = &mut function.graph[node];
                let variable = leaf.outputs[0].variables[axis];
                leaf.variables[variable as usize] = Variable::over(&other);
                readers.into_iter().for_each(|reader| read(function, reader, axis, way, size));
            }
            Op::Const(_) => {}
            _ => {
                let reader = readers[draw.below(readers.len())];
                read(function, reader, axis, Way::inside(draw), size);
            }
        }
    }
}

fn read(function: &mut Function, (reader, slot): (NodeIndex, u32), axis: usize, way: Way, size: i64) {
    let node = &mut function.graph[reader];
    let position = way.position(&node.maps[slot as usize].exprs[axis], size, &|variable| node.size_of(variable));
    node.maps[slot as usize].exprs[axis] = position;
}
