//! What joins a group: maps that read its values, maps beside those, and the maps that it reads.

use super::{Builder, Group, Kind, scattered_variables};
use crate::codegen::strip::strip_of;
use crate::plan::trace::{Trace, distinct_variables, through_map, through_views, variable_positions};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;
use strang_ir::{Node, Op, ScalarExpr, Value, scalar::Binary};

impl Builder<'_> {
    /// Joins a map to a group that it reads position by position: the last group it reads, or one that can move there.
    pub(super) fn join_as_epilogue(&mut self, index: NodeIndex) -> bool {
        let operands = self.function.operands(index);
        let mut sources = Vec::new();
        operands.iter().for_each(|operand| self.sources(*operand, &mut sources));
        let mut homes: Vec<usize> = sources.iter().filter_map(|value| self.home.get(&value.node)).copied().collect();
        homes.sort_unstable_by(|a, b| b.cmp(a));
        homes.dedup();
        for home in &homes {
            let Some(frame) = self.epilogue_frame(index, &operands, *home) else { continue };
            let home = if *home == homes[0] {
                *home
            } else if self.is_read_later(*home) {
                continue;
            } else {
                self.move_to_the_end(*home)
            };
            for other in &homes {
                self.take_beside(*other, home, index, &operands, &frame);
            }
            let group = self.groups[home].as_mut().expect("a group that was just found");
            group.epilogue.push(index);
            group.frames.insert(index, frame);
            self.home.insert(index, home);
            return true;
        }
        false
    }

    /// Takes another group of maps into one that `index` joins, at `frame`, if nothing but `index` reads it, position by
    /// position: both sides of a sum are then computed in one pass.
    fn take_beside(&mut self, other: usize, home: usize, index: NodeIndex, operands: &[Value], frame: &[u32]) {
        let is_of_maps = |group: &Group| {
            group.kind == Kind::Map && group.nodes().all(|node| matches!(self.node(node).op, Op::Map(_)))
        };
        let are_of_maps = [other, home].iter().all(|home| self.groups[*home].as_ref().is_some_and(is_of_maps));
        if other == home || !are_of_maps || !self.only_read_by(other, index) {
            return;
        }
        let Some(own) = self.epilogue_frame(index, operands, other) else { return };
        let Some(group) = &self.groups[other] else { return };
        let place = |variable: &u32| own.iter().position(|v| v == variable).map(|place| frame[place]);
        let frames: Option<Vec<(NodeIndex, Vec<u32>)>> = group
            .nodes()
            .map(|node| Some((node, group.frames[&node].iter().map(place).collect::<Option<_>>()?)))
            .collect();
        let (Some(frames), Some(group)) = (frames, &mut self.groups[home]) else { return };
        group.epilogue.extend(frames.iter().map(|(node, _)| *node));
        self.home.extend(frames.iter().map(|(node, _)| (*node, home)));
        group.frames.extend(frames);
        self.groups[other] = None;
    }

    /// The frame of a map in a group whose values it reads once at every position.
    fn epilogue_frame(&self, index: NodeIndex, operands: &[Value], home: usize) -> Option<Vec<u32>> {
        let group = self.groups[home].as_ref()?;
        if matches!(group.kind, Kind::Concat | Kind::Scatter | Kind::Control) {
            return None;
        }
        let mut frame: Option<Vec<u32>> = None;
        for (slot, operand) in operands.iter().enumerate() {
            if !self.reads_group(*operand, home) {
                continue;
            }
            for trace in self.traces_into(home, index, self.trace(index, slot, *operand))? {
                let found = self.frame_of(group, self.node(index), &trace)?;
                if frame.as_ref().is_some_and(|frame| *frame != found) {
                    return None;
                }
                frame = Some(found);
            }
        }
        frame
    }

    /// Where values of a group are read by what a trace leads to, through maps that are computed where they are read.
    /// `None` where one of them is read with a guard.
    fn traces_into(&self, home: usize, reader: NodeIndex, trace: Trace) -> Option<Vec<Trace>> {
        let source = trace.value;
        if !self.virtuals.contains(&source.node) {
            return Some(vec![trace]);
        }
        if trace.guard.is_some() {
            return None;
        }
        let node = self.node(source.node);
        let positions = variable_positions(node, source.port, &trace.position);
        let size_of = |v: u32| self.node(reader).size_of(v);
        let mut found = Vec::new();
        for (slot, operand) in self.function.operands(source.node).into_iter().enumerate() {
            if self.reads_group(operand, home) {
                let inner = through_map(self.function, &node.maps[slot], operand, &positions, None, &size_of);
                let inner = through_views(self.function, inner, &|value| self.is_virtual_view(value), &size_of);
                found.extend(self.traces_into(home, reader, inner)?);
            }
        }
        Some(found)
    }

    fn is_virtual_view(&self, value: Value) -> bool {
        self.virtuals.contains(&value.node) && matches!(self.node(value.node).op, Op::View)
    }

    fn move_to_the_end(&mut self, home: usize) -> usize {
        let group = self.groups[home].take().expect("a group that was just found");
        self.add(group);
        self.groups.len() - 1
    }

    /// Which kernel variable each variable of a map is, when it reads a value of the group once at every position.
    fn frame_of(&self, group: &Group, node: &Node, trace: &Trace) -> Option<Vec<u32>> {
        if trace.guard.is_some() || group.prologue.contains(&trace.value.node) {
            return None;
        }
        let kernel_variables = group.frames.get(&trace.value.node)?;
        let source = self.node(trace.value.node);
        let axes = &source.outputs[trace.value.port as usize].variables;
        let read = distinct_variables(&trace.position)?;
        // Every variable of the map must be read: a variable that is not would repeat the value.
        if read.len() != node.variables.len() || axes.len() != read.len() {
            return None;
        }
        let mut frame = vec![0; node.variables.len()];
        for (variable, axis) in read.iter().zip(axes) {
            if node.size_of(*variable) != source.size_of(*axis) {
                return None;
            }
            frame[*variable as usize] = kernel_variables[*axis as usize];
        }
        Some(frame)
    }

    /// Takes the group of maps that an operand of a row operation, a reduction or a scatter comes from, if nothing else
    /// reads it.
    pub(super) fn take_prologue(&mut self, group: &mut Group, slot: usize) {
        let root = group.root;
        let operand = self.function.operands(root)[slot];
        let trace = self.trace(root, slot, operand);
        let Some(home) = self.home.get(&trace.value.node).copied() else { return };
        let Some(source) = &self.groups[home] else { return };
        let stores_allowed = group.kind == Kind::Rows;
        if source.kind != Kind::Map || trace.guard.is_some() || matches!(self.node(source.root).op, Op::View) {
            return;
        }
        // Functions of a whole strip take a small part of the time that those of one element after the other take in a fold.
        if group.kind == Kind::Fold && source.nodes().any(|node| is_of_strips(self.node(node))) {
            return;
        }
        let Some(read) = distinct_variables(&trace.position) else { return };
        // Where the root repeats the value, it would be computed again.
        if read.len() != self.moving_variables(root).len() {
            return;
        }
        // In the kernel the maps have one value at a time: nothing can read them at another position, or in another part of it.
        let reads_elsewhere = |(other, operand): (usize, Value)| {
            other != slot
                && self.reads_group(operand, home)
                && !(group.kind == Kind::Fold && self.trace(root, other, operand) == trace)
        };
        if self.function.operands(root).into_iter().enumerate().any(reads_elsewhere) {
            return;
        }
        let outside = source.nodes().any(|member| self.read_outside(member, home, root));
        // What others read is written here, so all of it must pass by.
        if outside && !(stores_allowed && self.reads_whole(root, &read, trace.value)) {
            return;
        }
        // Groups between that read the maps' values would run before them.
        if self.is_read_later(home) {
            return;
        }
        // The value's axes are the source's kernel variables; the root reads axis `i` at its variable `read[i]`.
        let value_frame = &source.frames[&trace.value.node];
        let axes = &self.node(trace.value.node).outputs[trace.value.port as usize].variables;
        let mut renamed: FxHashMap<u32, u32> = FxHashMap::default();
        for (axis, variable) in axes.iter().zip(&read) {
            renamed.insert(value_frame[*axis as usize], *variable);
        }
        let frames: Option<Vec<(NodeIndex, Vec<u32>)>> = source
            .frames
            .iter()
            .map(|(node, frame)| {
                let frame: Option<Vec<u32>> = frame.iter().map(|v| renamed.get(v).copied()).collect();
                frame.map(|frame| (*node, frame))
            })
            .collect();
        let Some(frames) = frames else { return };
        group.prologue = source.nodes().collect();
        group.frames.extend(frames);
        self.groups[home] = None;
    }

    /// Whether a node that reads axis `i` of a value at its variable `read[i]` reads every position.
    fn reads_whole(&self, reader: NodeIndex, read: &[u32], value: Value) -> bool {
        let (reader, source) = (self.node(reader), self.node(value.node));
        let axes = &source.outputs[value.port as usize].variables;
        read.iter().zip(axes).all(|(variable, axis)| reader.size_of(*variable) == source.size_of(*axis))
    }

    /// The variables that a node's kernel runs over: all, but for a scatter, which visits the positions of its updates.
    fn moving_variables(&self, root: NodeIndex) -> Vec<u32> {
        let node = self.node(root);
        match &node.op {
            Op::Scatter { target, .. } => scattered_variables(node, target),
            _ => (0..node.variables.len() as u32).collect(),
        }
    }
}

/// Whether a map has functions that are computed for a strip of elements at once.
fn is_of_strips(node: &Node) -> bool {
    let Op::Map(expression) = &node.op else { return false };
    let mut found = false;
    expression.visit(&mut |part| {
        found |= match part {
            ScalarExpr::Unary(function, _) => strip_of(*function).is_some(),
            ScalarExpr::Binary(function, ..) => *function == Binary::Power,
            _ => false,
        };
    });
    found
}
