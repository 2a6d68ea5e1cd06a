//! Walking a model: ports, constants, nodes in order, inlined functions, and the scopes of names.

use super::{
    ImportOptions,
    attributes::Attributes,
    call::Call,
    data::{Loader, tensor_type},
    draft::{Builder, Origin, dotted_identifier, identifier},
    error::{ImportError, Place},
    fold, operators,
    order::order,
    proto::{AttributeProto, Dimension, DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto},
    values::Item,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::Arc,
};
use strang_ir::{Function, FunctionId, Literal, Module, Op, ScalarExpr, Source, Value, circuit::Parameter};
use strang_runtime::{ElementType, Size, Tensor};

/// The opset versions of the default domain that are read.
pub const OPSETS: std::ops::RangeInclusive<i64> = 1..=28;

/// A model in which functions call functions may not grow beyond this many nodes.
const NODE_LIMIT: usize = 1 << 20;

/// Functions may call each other so deep.
const DEPTH_LIMIT: usize = 64;

/// The state of an import.
pub struct Importer<'a> {
    /// The module so far.
    pub module: Module,
    /// Functions under construction: the entry, then the bodies that are open.
    pub builders: Vec<Builder>,
    /// The version of the default domain for the nodes being imported; 0 where the model imports none.
    pub opset: i64,
    /// The versions of the other domains that the model imports.
    pub domains: FxHashMap<&'a str, i64>,
    /// The node being imported.
    pub origin: Origin,
    /// Where constants come from.
    pub loader: &'a Loader,
    scopes: Vec<Scope<'a>>,
    functions: FxHashMap<(&'a str, &'a str, &'a str), &'a FunctionProto>,
    /// Functions that are being inlined.
    open: Vec<(&'a str, &'a str)>,
    symbols: Symbols<'a>,
    imported: usize,
    /// Values of the entry's inputs, for what must be known.
    pub(super) given: FxHashMap<Value, Item>,
    /// What [`Importer::evaluated`] has found for values of the entry.
    pub(super) evaluated: RefCell<FxHashMap<Value, Option<Tensor>>>,
}

/// Names of one graph or inlined function.
#[derive(Default)]
struct Scope<'a> {
    names: FxHashMap<&'a str, Item>,
    /// The function that its values belong to.
    builder: usize,
    /// Whether names of the enclosing scope are visible.
    nested: bool,
    /// What the attributes that an inlined function refers to stand for.
    attributes: FxHashMap<&'a str, &'a AttributeProto>,
}

impl<'a> Importer<'a> {
    /// An importer for a model.
    ///
    /// # Errors
    /// A model of an unknown opset, or two functions of one name.
    pub fn new(model: &'a ModelProto, options: &'a ImportOptions, loader: &'a Loader) -> Result<Self, ImportError> {
        let mut functions = FxHashMap::default();
        for function in &model.functions {
            let key = (function.domain.as_str(), function.name.as_str(), function.overload.as_str());
            if functions.insert(key, function).is_some() {
                let reason = format!("the function {}.{} is defined twice", function.domain, function.name);
                return Err(ImportError::Model { reason });
            }
        }
        let place = Place { node: String::new(), operator: String::new() };
        Ok(Importer {
            module: Module::default(),
            builders: Vec::new(),
            opset: default_opset(&model.opset_import)?,
            domains: model.opset_import.iter().map(|import| (import.domain.as_str(), import.version)).collect(),
            origin: Origin { place, source: Source::None, block: None, base: String::new() },
            loader,
            scopes: Vec::new(),
            functions,
            open: Vec::new(),
            symbols: Symbols { options, names: BTreeMap::new(), used: FxHashSet::default() },
            imported: 0,
            given: FxHashMap::default(),
            evaluated: RefCell::default(),
        })
    }

    /// Imports the graph of the model as the entry of the module.
    ///
    /// # Errors
    /// Whatever is wrong with the model.
    pub fn import(mut self, graph: &'a GraphProto) -> Result<Module, ImportError> {
        let name = if graph.name.is_empty() { "main".to_owned() } else { identifier(&graph.name) };
        self.module.title = graph.name.as_str().into();
        // The entry comes first; bodies are added while it is built.
        self.module.functions.push(Function::new(name.as_str()));
        self.builders.push(Builder::new(&name));
        self.scopes.push(Scope::default());
        self.initializers(graph)?;
        let inputs = graph.input.iter().filter(|input| !self.defines(&input.name));
        let inputs: Vec<_> = inputs.collect();
        self.symbols.collect(inputs.iter().filter_map(|input| tensor_type(input).ok()).map(|(_, dims)| dims))?;
        for input in inputs {
            let error = |reason| ImportError::Port { what: "input", name: input.name.clone(), reason };
            let (element, dims) = tensor_type(input).map_err(error)?;
            let sizes = self.symbols.sizes(&input.name, dims).map_err(error)?;
            let value = self.builder_mut().input(&input.name, element, &sizes);
            if let Some(tensor) = self.symbols.options.values.get(&input.name) {
                if tensor.element() != element || tensor.shape().len() != sizes.len() {
                    return Err(error(format!("its value is {tensor:?}, but it is {element}{sizes:?}")));
                }
                self.given.insert(value, Item::constant(&input.name, tensor.clone()));
            }
            self.define(&input.name, value.into())?;
        }
        let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        if outputs.is_empty() {
            return Err(ImportError::Model { reason: "the graph has no outputs".into() });
        }
        self.walk(&graph.node, &outputs)?;
        let mut values = Vec::with_capacity(outputs.len());
        for name in &outputs {
            let error =
                |reason: &str| ImportError::Port { what: "output", name: (*name).into(), reason: reason.into() };
            let item = self.lookup(name)?.ok_or_else(|| error("nothing in the graph produces it"))?;
            if item.is_absent() {
                return Err(error("its node leaves it out"));
            }
            values.push(self.materialise(&item)?);
        }
        let mut entry = self.builders.pop().expect("the entry was pushed above").function;
        entry.outputs = values;
        entry.output_names = outputs.into_iter().map(Arc::from).collect();
        entry.remove_dead();
        self.module.functions[0] = entry;
        Ok(self.module)
    }

    /// Defines the constants of a graph.
    fn initializers(&mut self, graph: &'a GraphProto) -> Result<(), ImportError> {
        if !graph.sparse_initializer.is_empty() {
            let reason = "sparse constants are not supported; save the model with dense ones".into();
            return Err(ImportError::Model { reason });
        }
        for proto in &graph.initializer {
            let tensor = self.loader.tensor(proto)?;
            self.define(&proto.name, Item::constant(&proto.name, tensor))?;
        }
        Ok(())
    }

    /// The function under construction.
    pub fn builder(&self) -> &Builder {
        self.builders.last().expect("an importer has a function under construction")
    }

    /// The function under construction.
    pub fn builder_mut(&mut self) -> &mut Builder {
        self.builders.last_mut().expect("an importer has a function under construction")
    }

    fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes.last_mut().expect("an importer has a scope")
    }

    fn defines(&self, name: &str) -> bool {
        self.scopes.last().is_some_and(|scope| scope.names.contains_key(name))
    }

    /// Gives a name a meaning in the innermost scope.
    ///
    /// # Errors
    /// A name that has one already.
    pub fn define(&mut self, name: &'a str, item: Item) -> Result<(), ImportError> {
        if name.is_empty() {
            return Ok(());
        }
        match self.scope().names.insert(name, item) {
            None => Ok(()),
            Some(_) => Err(ImportError::Model { reason: format!("the name `{name}` is given to two values") }),
        }
    }

    /// What a name stands for, seen from the function under construction: values of enclosing functions become inputs.
    ///
    /// # Errors
    /// Does not fail today; captured constants may.
    pub fn lookup(&mut self, name: &str) -> Result<Option<Item>, ImportError> {
        let mut position = self.scopes.len();
        while position > 0 {
            position -= 1;
            let scope = &self.scopes[position];
            if let Some(item) = scope.names.get(name) {
                let (item, from) = (item.clone(), scope.builder);
                return Ok(Some(match item {
                    Item::Value(value) => Item::Value(self.capture(value, from, name)),
                    other => other,
                }));
            }
            if !scope.nested {
                break;
            }
        }
        Ok(None)
    }

    /// Brings a value of an open function into the innermost one.
    fn capture(&mut self, mut value: Value, from: usize, name: &str) -> Value {
        for level in from + 1..self.builders.len() {
            let outer = &self.builders[level - 1].function;
            let (element, sizes) = (outer.element_of(value), outer.shape_of(value));
            value = self.builders[level].capture(value, name, element, &sizes);
        }
        value
    }

    /// The item, or its value where that follows from constants and from the inputs that the options give.
    pub fn given(&self, item: Item) -> Item {
        let Item::Value(value) = item else { return item };
        match self.evaluated(value) {
            Some(tensor) => Item::constant(&*self.builder().function.output_of(value).name, tensor),
            None => item,
        }
    }

    /// The sizes of an item's axes; none for one that is absent.
    pub fn shape_of_item(&self, item: &Item) -> Vec<Size> {
        let sizes = |shape: &[usize]| shape.iter().map(|size| Size::from(*size as i64)).collect();
        match item {
            Item::Absent => vec![],
            Item::Value(value) => self.builder().function.shape_of(*value),
            Item::Constant(constant) => sizes(constant.tensor.shape()),
            Item::Known(known) => sizes(&known.shape),
        }
    }

    /// The element type of an item; that of sizes for one that is absent.
    pub fn element_of_item(&self, item: &Item) -> ElementType {
        match item {
            Item::Absent => ElementType::I64,
            Item::Value(value) => self.builder().function.element_of(*value),
            Item::Constant(constant) => constant.tensor.element(),
            Item::Known(known) => known.element,
        }
    }

    /// An item as a value of the circuit under construction.
    ///
    /// # Errors
    /// An item that is absent.
    pub fn materialise(&mut self, item: &Item) -> Result<Value, ImportError> {
        match item {
            Item::Absent => Err(ImportError::Node {
                place: self.origin.place.clone(),
                reason: "an input that is left out is needed".into(),
            }),
            Item::Value(value) => Ok(*value),
            Item::Constant(constant) => {
                if constant.tensor.shape().is_empty() {
                    let literal = Literal { element: constant.tensor.element(), bits: constant.tensor.bits_at(0) };
                    return Ok(self.builder_mut().constant(literal));
                }
                let position = match constant.parameter.get() {
                    Some(position) => position,
                    None => {
                        let position = self.add_parameter(&constant.name, constant.tensor.clone());
                        constant.parameter.set(Some(position));
                        position
                    }
                };
                let builder = self.builders.last_mut().expect("an importer has a function under construction");
                Ok(builder.parameter(position, &self.module))
            }
            Item::Known(known) => match known.to_tensor() {
                Some(tensor) => {
                    let name = format!("{}_value", self.origin.base);
                    self.materialise(&Item::constant(name, tensor))
                }
                None => Ok(self.sizes_value(known)),
            },
        }
    }

    /// Sizes that depend on symbols as a map that chooses by position.
    fn sizes_value(&mut self, known: &super::values::Known) -> Value {
        let shape: Vec<Size> = known.shape.iter().map(|size| Size::from(*size as i64)).collect();
        let (draft, variables) = super::draft::Draft::over(&shape);
        let mut position = ScalarExpr::Literal(Literal::i64(0));
        for (variable, size) in variables.iter().zip(&shape) {
            let scaled = operators::scalar::mul(position, ScalarExpr::Size(size.clone()));
            position = operators::scalar::add(scaled, ScalarExpr::Index(*variable));
        }
        if let [variable] = variables[..] {
            position = ScalarExpr::Index(variable);
        }
        let mut entries = known.sizes.iter().enumerate().rev();
        let last = entries.next().map_or(Size::ZERO, |(_, size)| size.clone());
        let chosen = entries.fold(ScalarExpr::Size(last), |rest, (index, size)| {
            let here = operators::scalar::equal(position.clone(), ScalarExpr::Literal(Literal::i64(index as i64)));
            ScalarExpr::select(here, ScalarExpr::Size(size.clone()), rest)
        });
        let op = Op::Map(operators::scalar::cast(known.element, ElementType::I64, chosen));
        let builder = self.builders.last_mut().expect("an importer has a function under construction");
        builder.add(draft, op, vec![(known.element, variables)], &self.origin)[0]
    }

    fn add_parameter(&mut self, name: &str, tensor: Tensor) -> u32 {
        let wanted = dotted_identifier(name);
        let taken = |name: &str, module: &Module| module.parameters.iter().any(|other| *other.name == *name);
        let mut name = wanted.clone();
        let mut count = 1;
        while taken(&name, &self.module) {
            count += 1;
            name = format!("{wanted}_{count}");
        }
        let axes = tensor.shape().iter().map(|size| super::draft::axis_of(&Size::from(*size as i64))).collect();
        let parameter = Parameter::new(name, tensor.element(), axes).with_data(tensor);
        self.module.add_parameter(parameter)
    }

    /// Imports the nodes that outputs depend on, in the innermost scope.
    ///
    /// # Errors
    /// Whatever is wrong with a node.
    pub fn walk(&mut self, nodes: &'a [NodeProto], outputs: &[&'a str]) -> Result<(), ImportError> {
        let order = order(nodes, outputs)?;
        for position in order.nodes {
            let node = &nodes[position];
            let saved = self.origin.clone();
            self.origin = origin_of(node, position);
            self.node(node, &order.wanted)?;
            self.origin = saved;
        }
        Ok(())
    }

    fn node(&mut self, node: &'a NodeProto, wanted: &FxHashSet<&'a str>) -> Result<(), ImportError> {
        self.imported += 1;
        if self.imported > NODE_LIMIT {
            let reason = format!("the model has more than {NODE_LIMIT} nodes once its functions are inlined");
            return Err(ImportError::Model { reason });
        }
        let mut operands = Vec::with_capacity(node.input.len());
        for (slot, name) in node.input.iter().enumerate() {
            let item = if name.is_empty() { Some(Item::Absent) } else { self.lookup(name)? };
            operands.push(item.ok_or_else(|| ImportError::Operand {
                place: self.origin.place.clone(),
                slot: format!("{slot} (`{name}`)"),
                reason: "nothing in the graph produces it".into(),
            })?);
        }
        let environment = self.scopes.last().map(|scope| scope.attributes.clone()).unwrap_or_default();
        let resolve = |name: &str| environment.get(name).copied();
        let attributes = Attributes::new(self.origin.place.clone(), &node.attribute, &resolve)?;
        let key = (node.domain.as_str(), node.op_type.as_str(), node.overload.as_str());
        if let Some(function) = self.functions.get(&key).copied() {
            return self.inline(node, function, operands, &attributes);
        }
        let (version, import) = operators::find(node, self)?;
        if version < 6 {
            // Says which inputs may be overwritten; planning of memory finds that out itself.
            attributes.ignore(&["consumed_inputs"]);
        }
        let mark = self.builder().function.graph.node_count();
        let mut call = Call {
            importer: self,
            operator: &node.op_type,
            version,
            attributes,
            read: vec![Cell::new(false); operands.len()],
            operands,
            names: &node.input,
            wanted: node.output.iter().map(|name| !name.is_empty() && wanted.contains(name.as_str())).collect(),
        };
        let items = match fold::fold(&mut call)? {
            Some(items) => items,
            None => {
                let items = import(&mut call)?;
                call.finish()?;
                items
            }
        };
        call.attributes.finish()?;
        for (position, name) in node.output.iter().enumerate() {
            let Some(item) = items.get(position) else {
                if !name.is_empty() && wanted.contains(name.as_str()) {
                    let reason = format!("its output {position} (`{name}`) is not supported");
                    return Err(ImportError::Node { place: self.origin.place.clone(), reason });
                }
                continue;
            };
            if let Item::Value(value) = item
                && value.node.index() >= mark
                && !matches!(self.builder().function.graph[value.node].op, Op::Param(_) | Op::Const(_) | Op::Input(_))
            {
                self.builder_mut().rename(*value, name);
            }
            self.define(name, item.clone())?;
        }
        Ok(())
    }

    /// Imports the nodes of a model-local function in place of a call.
    fn inline(
        &mut self,
        node: &'a NodeProto,
        function: &'a FunctionProto,
        operands: Vec<Item>,
        attributes: &Attributes<'a>,
    ) -> Result<(), ImportError> {
        let place = self.origin.place.clone();
        let error = |reason: String| ImportError::Node { place: place.clone(), reason };
        let key = (function.domain.as_str(), function.name.as_str());
        if self.open.contains(&key) {
            return Err(error("the function calls itself".into()));
        }
        if self.open.len() >= DEPTH_LIMIT {
            return Err(error(format!("functions call each other more than {DEPTH_LIMIT} deep")));
        }
        if operands.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(error(format!(
                "the function has {} inputs and {} outputs, but {} and {} are given",
                function.input.len(),
                function.output.len(),
                operands.len(),
                node.output.len()
            )));
        }
        let mut scope = Scope { builder: self.builders.len() - 1, ..Scope::default() };
        for default in &function.attribute_default {
            scope.attributes.insert(&default.name, default);
        }
        for name in &function.attribute {
            if let Some(value) = attributes.reference(name) {
                scope.attributes.insert(name, value);
            }
        }
        for default in &function.attribute_default {
            if let Some(value) = attributes.reference(&default.name) {
                scope.attributes.insert(&default.name, value);
            }
        }
        attributes.finish()?;
        let version = match function.opset_import.iter().any(|import| is_default(&import.domain)) {
            true => default_opset(&function.opset_import)?,
            false => self.opset,
        };
        let outer_version = std::mem::replace(&mut self.opset, version);
        self.open.push(key);
        self.scopes.push(scope);
        let mut operands = operands.into_iter();
        for name in &function.input {
            self.define(name, operands.next().unwrap_or(Item::Absent))?;
        }
        let outputs: Vec<&str> = function.output.iter().take(node.output.len()).map(String::as_str).collect();
        self.walk(&function.node, &outputs)?;
        let mut items = Vec::new();
        for name in &outputs {
            items.push(self.lookup(name)?.ok_or_else(|| error(format!("nothing in the function produces `{name}`")))?);
        }
        self.scopes.pop();
        self.open.pop();
        self.opset = outer_version;
        node.output.iter().zip(items).try_for_each(|(name, item)| self.define(name, item))
    }

    /// Opens a body: a new function whose names see those around it.
    ///
    /// # Errors
    /// Constants of the body that cannot be read.
    pub fn open_body(&mut self, graph: &'a GraphProto, wanted: &str) -> Result<(), ImportError> {
        let mut name = identifier(wanted);
        while self.module.functions.iter().any(|function| *function.name == *name)
            || self.builders.iter().any(|builder| *builder.function.name == *name)
        {
            name.push('_');
        }
        self.builders.push(Builder::new(&name));
        self.open_scope(graph)
    }

    /// Opens the scope of a body whose nodes go into the function under construction.
    ///
    /// # Errors
    /// Constants of the body that cannot be read.
    pub fn open_scope(&mut self, graph: &'a GraphProto) -> Result<(), ImportError> {
        let attributes = self.scopes.last().map(|scope| scope.attributes.clone()).unwrap_or_default();
        let builder = self.builders.len() - 1;
        self.scopes.push(Scope { names: FxHashMap::default(), builder, nested: true, attributes });
        self.initializers(graph)
    }

    /// Imports the nodes of the open body and yields its outputs.
    ///
    /// # Errors
    /// Whatever is wrong with a node of the body.
    pub fn walk_body(&mut self, graph: &'a GraphProto) -> Result<Vec<Item>, ImportError> {
        let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
        self.walk(&graph.node, &outputs)?;
        let mut items = Vec::with_capacity(outputs.len());
        for name in outputs {
            items.push(self.lookup(name)?.ok_or_else(|| ImportError::Node {
                place: self.origin.place.clone(),
                reason: format!("nothing in its body produces the output `{name}`"),
            })?);
        }
        Ok(items)
    }

    /// Closes the scope of a body that went into the function under construction.
    pub fn close_scope(&mut self) {
        self.scopes.pop();
    }

    /// Closes the open body and yields it with the values of the enclosing function that it reads.
    pub fn close_body(&mut self) -> (Function, Vec<Value>) {
        self.scopes.pop();
        let builder = self.builders.pop().expect("a body is open");
        (builder.function, builder.captures.into_iter().map(|(outer, _)| outer).collect())
    }

    /// Opens a body that is built by an operator instead of being read from a graph.
    pub fn open_made_body(&mut self, wanted: &str) {
        let mut name = identifier(wanted);
        while self.module.functions.iter().any(|function| *function.name == *name) {
            name.push('_');
        }
        self.builders.push(Builder::new(&name));
        self.scopes.push(Scope { builder: self.builders.len() - 1, ..Scope::default() });
    }

    /// Closes such a body with its results and adds it to the module.
    pub fn close_made_body(&mut self, results: &[Value]) -> FunctionId {
        let (mut function, _) = self.close_body();
        function.outputs = results.to_vec();
        function.output_names = (0..results.len()).map(|position| format!("out{position}").into()).collect();
        self.add_function(function)
    }

    /// Adds a finished body to the module.
    pub fn add_function(&mut self, function: Function) -> FunctionId {
        self.module.functions.push(function);
        FunctionId(self.module.functions.len() as u32 - 1)
    }
}

fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn default_opset(imports: &[super::proto::OperatorSetIdProto]) -> Result<i64, ImportError> {
    let Some(import) = imports.iter().find(|import| is_default(&import.domain)) else { return Ok(0) };
    if OPSETS.contains(&import.version) {
        return Ok(import.version);
    }
    let (first, last) = (OPSETS.start(), OPSETS.end());
    let reason = format!(
        "the model uses opset {}, but versions {first} to {last} are supported; onnx.version_converter can change it",
        import.version
    );
    Err(ImportError::Model { reason })
}

fn origin_of(node: &NodeProto, position: usize) -> Origin {
    let name = if node.name.is_empty() { format!("{}_{position}", node.op_type) } else { node.name.clone() };
    let block = name.rsplit_once('/').map(|(path, _)| path.trim_matches('/')).filter(|path| !path.is_empty());
    let base = node.output.iter().find(|name| !name.is_empty()).unwrap_or(&name);
    Origin {
        block: block.map(Arc::from),
        base: identifier(base),
        source: Source::Onnx(name.as_str().into()),
        place: Place { node: name, operator: node.op_type.clone() },
    }
}

/// The symbols of the inputs' dimensions.
struct Symbols<'a> {
    options: &'a ImportOptions,
    /// The size that each `dim_param` of the file stands for.
    names: BTreeMap<String, Size>,
    used: FxHashSet<String>,
}

impl<'a> Symbols<'a> {
    /// Finds the plain symbols first, so that expressions over them can be told from other names.
    fn collect(&mut self, shapes: impl Iterator<Item = &'a [DimensionProto]>) -> Result<(), ImportError> {
        let params: Vec<&str> = shapes
            .flatten()
            .filter_map(|dimension| match &dimension.value {
                Some(Dimension::Symbol(name)) if !name.trim().is_empty() => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let is_expression = |name: &str| identifier(name) != name && name.parse::<Size>().is_ok();
        for name in params.iter().filter(|name| !is_expression(name)) {
            if !self.names.contains_key(*name) {
                let symbol = self.unique(&identifier(name));
                let fixed = self.options.dimensions.get(*name).or_else(|| self.options.dimensions.get(&symbol));
                let size = fixed.map_or_else(|| Size::symbol(symbol), |size| Size::from(*size));
                self.names.insert((*name).to_owned(), size);
            }
        }
        let plain: BTreeMap<Arc<str>, Size> =
            self.names.iter().map(|(name, size)| (Arc::from(name.as_str()), size.clone())).collect();
        for name in params.iter().filter(|name| is_expression(name)) {
            let parsed = name.parse::<Size>().unwrap_or_default();
            let size = if parsed.symbols().iter().all(|symbol| plain.contains_key(symbol)) {
                parsed.substitute(&plain)
            } else {
                Size::symbol(self.unique(&identifier(name)))
            };
            self.names.entry((*name).to_owned()).or_insert(size);
        }
        match self.options.dimensions.iter().find(|(name, size)| **size < 0 || !self.is_dimension(name)) {
            None => Ok(()),
            Some((name, size)) if *size < 0 => {
                Err(ImportError::Model { reason: format!("the dimension `{name}` cannot be {size}") })
            }
            Some((name, _)) => {
                let known: Vec<String> = self.names.keys().map(|name| format!("`{name}`")).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                let reason = format!("the model has no dimension `{name}`; its named dimensions: {known}");
                Err(ImportError::Model { reason })
            }
        }
    }

    fn is_dimension(&self, name: &str) -> bool {
        self.names.contains_key(name) || self.used.contains(name)
    }

    fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.used.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}_{count}");
        }
        name
    }

    fn sizes(&mut self, input: &str, dims: &[DimensionProto]) -> Result<Vec<Size>, String> {
        let size = |(axis, dimension): (usize, &DimensionProto)| match &dimension.value {
            Some(Dimension::Size(size)) if *size >= 0 => Ok(Size::from(*size)),
            Some(Dimension::Symbol(name)) if !name.trim().is_empty() => {
                self.names.get(name).cloned().ok_or_else(|| format!("its dimension `{name}` is unknown"))
            }
            // Without a name, a dimension is called after the input and the axis.
            _ => Ok(Size::symbol(self.unique(&identifier(&format!("{input}_{axis}"))))),
        };
        dims.iter().enumerate().map(size).collect()
    }
}
