//! A readable summary of a tensor.

use std::fmt::Write;
use strang::Tensor;

/// Shape, range and first values; for one row of classes the top five.
pub fn summary(name: &str, tensor: &Tensor) -> String {
    let values = tensor.to_f64();
    let sizes: Vec<String> = tensor.shape().iter().map(ToString::to_string).collect();
    let mut text = format!("{name}: {}[{}]", tensor.element(), sizes.join(", "));
    if values.is_empty() {
        return text + " (empty)";
    }
    let numbers = || values.iter().copied().filter(|value| !value.is_nan());
    let (low, high) = (numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max));
    if low <= high {
        let mean = numbers().sum::<f64>() / numbers().count() as f64;
        let _ = write!(text, "  from {} to {}, mean {}", short(low), short(high), short(mean));
    }
    let nans = values.len() - numbers().count();
    if nans > 0 {
        let _ = write!(text, ", {nans} NaN");
    }
    let rows: usize = tensor.shape().iter().rev().skip(1).product();
    if rows == 1 && values.len() >= 5 && tensor.element().is_float() && !tensor.shape().is_empty() {
        let mut classes: Vec<usize> = (0..values.len()).collect();
        classes.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        let top: Vec<String> =
            classes.iter().take(5).map(|class| format!("{class}: {}", short(values[*class]))).collect();
        let _ = write!(text, "\n  top five  {}", top.join("  "));
    } else {
        let first: Vec<String> = values.iter().take(8).map(|value| short(*value)).collect();
        let more = if values.len() > 8 { " ..." } else { "" };
        let _ = write!(text, "\n  first values  {}{more}", first.join(" "));
    }
    text
}

/// A number with five significant digits.
fn short(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e9 {
        return format!("{value}");
    }
    if (1e-3..1e6).contains(&value.abs()) {
        let digits = (4 - value.abs().log10().floor() as i32).max(0) as usize;
        return format!("{value:.digits$}");
    }
    format!("{value:.4e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_of_classes_shows_the_top_five() {
        let tensor = Tensor::from_slice(&[1, 6], &[0.5f32, 2., -1., 9.25, 0., 3.]).unwrap();
        let text = summary("logits", &tensor);
        assert!(text.ends_with("top five  3: 9.2500  5: 3  1: 2  0: 0.50000  4: 0"), "{text}");
    }

    #[test]
    fn others_show_first_values() {
        let tensor = Tensor::from_slice(&[2, 2], &[1i64, 2, 3, 4]).unwrap();
        assert_eq!(summary("y", &tensor), "y: i64[2, 2]  from 1 to 4, mean 2.5000\n  first values  1 2 3 4");
    }
}
