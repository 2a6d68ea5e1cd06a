//! Generated transformers, for tests and benches.

use std::fmt::Write;
use strang_ir::{Module, random::random_tensor, text};

/// A transformer's encoder in pieces: layers that differ in their weights alone, with so many heads of so many features.
pub fn encoder(layers: usize, (heads, features): (usize, usize)) -> Module {
    let (mut parameters, mut body, mut x) = (String::new(), String::new(), "%x".to_owned());
    for layer in 0..layers {
        for (name, axes) in [("wq", "m, h, k"), ("wk", "m, h, k"), ("wv", "m, h, k"), ("wo", "h, k, m")] {
            let _ = writeln!(parameters, "param @{name}_{layer}: f32[{axes}]");
        }
        for (name, axes) in [("g", "m"), ("b", "m"), ("w1", "m, f"), ("b1", "f"), ("w2", "f, m"), ("b2", "m")] {
            let _ = writeln!(parameters, "param @{name}_{layer}: f32[{axes}]");
        }
        let _ = writeln!(
            body,
            "  %n{layer} = norm layer(eps = 1e-5) : {x}[s, {{m}}], @g_{layer}[m], @b_{layer}[m] -> [s, {{m}}]
  %q{layer} = dot %n{layer}[s, {{m}}], @wq_{layer}[{{m}}, h, k] -> [h, s, k]
  %k{layer} = dot %n{layer}[s, {{m}}], @wk_{layer}[{{m}}, h, k] -> [h, s, k]
  %v{layer} = dot %n{layer}[s, {{m}}], @wv_{layer}[{{m}}, h, k] -> [h, s, k]
  %s{layer} = dot %q{layer}[h, s, {{k}}], %k{layer}[h, s', {{k}}] -> [h, s, s']
  %t{layer} = map $0 * 0.25 : %s{layer}[h, s, s'] -> [h, s, s']
  %p{layer} = softmax %t{layer}[h, s, {{s'}}] -> [h, s, {{s'}}]
  %o{layer} = dot %p{layer}[h, s, {{s'}}], %v{layer}[h, {{s'}}, k] -> [s, h, k]
  %a{layer} = dot %o{layer}[s, {{h}}, {{k}}], @wo_{layer}[{{h}}, {{k}}, m] -> [s, m]
  %y{layer} = map add : {x}[s, m], %a{layer}[s, m] -> [s, m]
  %f{layer} = dot %y{layer}[s, {{m}}], @w1_{layer}[{{m}}, f] -> [s, f]
  %h{layer} = map $0 + $1 : %f{layer}[s, f], @b1_{layer}[f] -> [s, f]
  %e{layer} = map $0 * (erf($0 / 1.4142135) + 1.0) * 0.5 : %h{layer}[s, f] -> [s, f]
  %z{layer} = dot %e{layer}[s, {{f}}], @w2_{layer}[{{f}}, m] -> [s, m]
  %r{layer} = map $0 + ($1 + $2) * 0.5 : %y{layer}[s, m], %z{layer}[s, m], @b2_{layer}[m] -> [s, m]"
        );
        x = format!("%r{layer}");
    }
    let (model, hidden) = (heads * features, 2 * heads * features);
    let source = format!(
        "ncd 0.1 \"encoder\"\naxis s = 16   axis m = {model}   axis h = {heads}   axis k = {features}   axis f = {hidden}
{parameters}fn @f(%x: f32[s, m]) -> f32[s, m] {{\n{body}  return {x}\n}}\n"
    );
    let mut module = text::parse(&source, "encoder").unwrap_or_else(|error| panic!("{}", error.render()));
    for (number, parameter) in module.parameters.iter_mut().enumerate() {
        let shape: Vec<usize> = parameter.axes.iter().map(|axis| axis.size.as_constant().unwrap() as usize).collect();
        parameter.data = Some(random_tensor(parameter.element, &shape, false, number as u64));
    }
    module
}
