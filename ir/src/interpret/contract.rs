//! Contractions and reductions, in the order that [`super::order`] fixes.

use super::{
    Arithmetic, Data, Number,
    node::{Element, Prepared, for_each},
    numerics,
    order::{Lanes, Real, lane_variable},
    read::{Outside, Place, Reader, no_reads},
    scalar,
};
use crate::{
    op::{self, Monoid},
    scalar::Binary,
};
use strang_runtime::ElementType;

/// A chain of multiply-adds: its type of numbers, its step.
trait Chain: Copy {
    const ZERO: Self;
    const ONE: Self;
    fn load(number: Number) -> Self;
    fn store(self) -> Number;
    fn multiply(self, other: Self) -> Self;
    fn multiply_add(self, factor: Self, sum: Self) -> Self;
}

#[derive(Clone, Copy)]
struct Single(f32);

/// Typed f64.
#[derive(Clone, Copy)]
struct Double(f64);

/// Wide floats: how the sum is rounded does not matter.
#[derive(Clone, Copy)]
struct Wide(f64);

/// Integers. Wrapping to the accumulator at the end is as good as at each step.
#[derive(Clone, Copy)]
struct Whole(i128);

macro_rules! chain {
    ($name:ident, $zero:literal, $one:literal, $load:expr, $store:expr, $multiply:expr, $multiply_add:expr) => {
        impl Chain for $name {
            const ZERO: Self = $name($zero);
            const ONE: Self = $name($one);
            #[inline]
            fn load(number: Number) -> Self {
                $name($load(number))
            }
            fn store(self) -> Number {
                $store(self.0)
            }
            #[inline]
            fn multiply(self, other: Self) -> Self {
                $name($multiply(self.0, other.0))
            }
            #[inline]
            fn multiply_add(self, factor: Self, sum: Self) -> Self {
                $name($multiply_add(self.0, factor.0, sum.0))
            }
        }
    };
}

chain!(
    Single,
    0.,
    1.,
    |x: Number| x.to_f64() as f32,
    |x: f32| Number::Float(x.into()),
    |a: f32, b: f32| a * b,
    f32::mul_add
);
chain!(Double, 0., 1., Number::to_f64, Number::Float, |a: f64, b: f64| a * b, f64::mul_add);
chain!(Wide, 0., 1., Number::to_f64, Number::Float, |a: f64, b: f64| a * b, |a: f64, b: f64, c: f64| a * b + c);
chain!(Whole, 0, 1, Number::to_i128, Number::Integer, i128::wrapping_mul, |a: i128, b: i128, c: i128| a
    .wrapping_mul(b)
    .wrapping_add(c));

/// The type that operands are rounded to before they are multiplied, where they are not of it already.
fn narrow_factor(node: &Prepared) -> Option<ElementType> {
    let elements: Vec<ElementType> = node.readers.iter().map(|reader| reader.array.element).collect();
    op::factor(&elements).filter(|narrow| elements.iter().any(|element| element != narrow))
}

/// The sum of products over the contracted variables.
pub(super) fn dot<'a>(node: &'a Prepared<'a>, accumulator: ElementType) -> Element<'a> {
    match (accumulator.is_float(), node.arithmetic) {
        (false, _) => Box::new(move |position| {
            let sum = chain::<Whole>(node, None, position)?.to_i128();
            Ok(node.settle(Number::Integer(numerics::wrap(accumulator, sum))))
        }),
        (true, Arithmetic::Wide) => Box::new(|position| chain::<Wide>(node, None, position)),
        (true, Arithmetic::Typed) if accumulator == ElementType::F64 => {
            Box::new(|position| Ok(node.settle(chain::<Double>(node, None, position)?)))
        }
        (true, Arithmetic::Typed) => {
            let narrow = narrow_factor(node);
            Box::new(move |position| Ok(node.settle(chain::<Single>(node, narrow, position)?)))
        }
    }
}

fn chain<C: Chain>(node: &Prepared, narrow: Option<ElementType>, position: &mut [i64]) -> Result<Number, Outside> {
    // The last variable runs innermost; with all reads linear and two factors its loop is a plain inner product.
    if narrow.is_none()
        && let ([outer @ .., inner], [a, b]) = (node.contracted.as_slice(), node.readers.as_slice())
        && let (Some(a_at), Some(b_at)) = (&a.linear, &b.linear)
        && let (Data::Float(a), Data::Float(b)) = (&a.array.data, &b.array.data)
    {
        let (extent, a_stride, b_stride) = (node.extents[*inner], a_at.strides[*inner], b_at.strides[*inner]);
        let mut sum = C::ZERO;
        position[*inner] = 0;
        for_each(position, outer, &node.extents, |position| {
            if extent > 0 {
                let (mut at, mut bt) = (a_at.position(position), b_at.position(position));
                for _ in 0..extent {
                    let factors = (Number::Float(a[at as usize]), Number::Float(b[bt as usize]));
                    sum = C::load(factors.0).multiply_add(C::load(factors.1), sum);
                    at += a_stride;
                    bt += b_stride;
                }
            }
            Ok::<(), Outside>(())
        })?;
        return Ok(sum.store());
    }
    let mut sum = C::ZERO;
    for_each(position, &node.contracted, &node.extents, |position| {
        let Some((last, first)) = node.readers.split_last() else { return Ok(()) };
        let mut product: Option<C> = None;
        for reader in first {
            let Some(factor) = factor::<C>(reader, narrow, position)? else { return Ok(()) };
            product = Some(product.map_or(factor, |product| product.multiply(factor)));
        }
        if let Some(factor) = factor::<C>(last, narrow, position)? {
            sum = product.unwrap_or(C::ONE).multiply_add(factor, sum);
        }
        Ok(())
    })?;
    Ok(sum.store())
}

/// The factor at a position, rounded to a type where that is wanted; `None` where a zero fill is read, so that the term does not
/// count.
fn factor<C: Chain>(reader: &Reader, narrow: Option<ElementType>, position: &[i64]) -> Result<Option<C>, Outside> {
    let place = reader.place(position, &no_reads)?;
    let value = match (narrow, reader.value(place)) {
        (Some(narrow), Number::Float(value)) => Number::Float(numerics::round(narrow, value)),
        (_, value) => value,
    };
    Ok((place != Place::Fill || value.to_f64() != 0.).then(|| C::load(value)))
}

/// One operand combined over the contracted variables.
pub(super) fn reduce<'a>(node: &'a Prepared<'a>, monoid: Monoid) -> Element<'a> {
    let element = node.node.outputs[0].element;
    let lanes = lane_variable(node.node).map(|variable| variable as usize);
    match (monoid, element.is_float(), scalar::is_single(element, node.arithmetic)) {
        (Monoid::Sum, true, true) => Box::new(move |position| sum::<f32>(node, lanes, position)),
        (Monoid::Sum, true, false) => Box::new(move |position| sum::<f64>(node, lanes, position)),
        _ => Box::new(move |position| fold(node, monoid, element, position)),
    }
}

fn sum<R: Real>(node: &Prepared, lanes: Option<usize>, position: &mut [i64]) -> Result<Number, Outside> {
    let reader = &node.readers[0];
    let mut total = R::ZERO;
    let (row, outer) = match (lanes, node.contracted.split_last()) {
        (Some(row), Some((_, outer))) => (Some(row), outer),
        _ => (None, node.contracted.as_slice()),
    };
    for_each(position, outer, &node.extents, |position| {
        let value = match row {
            None => R::of(reader.get(position)?.to_f64()),
            Some(row) => {
                let mut lanes = Lanes::new();
                for_each(position, &[row], &node.extents, |position| {
                    lanes.push(R::of(reader.get(position)?.to_f64()));
                    Ok(())
                })?;
                lanes.sum()
            }
        };
        total = total.add(value);
        Ok(())
    })?;
    Ok(node.settle(Number::Float(total.into())))
}

fn fold(node: &Prepared, monoid: Monoid, element: ElementType, position: &mut [i64]) -> Result<Number, Outside> {
    // Products of the half types stay in f32 until the end, as sums do.
    let inner = match element {
        ElementType::F16 | ElementType::BF16 => ElementType::F32,
        other => other,
    };
    let mut total = Number::of(monoid.neutral(inner));
    for_each(position, &node.contracted, &node.extents, |position| {
        total = combine(monoid, inner, total, node.readers[0].get(position)?, node.arithmetic);
        Ok(())
    })?;
    Ok(node.settle(total))
}

/// Two values combined in an element type.
pub(super) fn combine(
    monoid: Monoid,
    element: ElementType,
    left: Number,
    right: Number,
    arithmetic: Arithmetic,
) -> Number {
    let function = match monoid {
        Monoid::Sum => Binary::Add,
        Monoid::Product => Binary::Multiply,
        Monoid::Minimum => Binary::Minimum,
        Monoid::Maximum => Binary::Maximum,
        Monoid::And => Binary::And,
        Monoid::Or => Binary::Or,
    };
    scalar::binary(function, element, left, right, arithmetic)
}

/// The position of the largest or smallest value along the contracted variable; 0 when it has no positions. NaN is more
/// extreme than any number, as in NumPy.
pub(super) fn arg_reduce<'a>(node: &'a Prepared<'a>, largest: bool, last: bool) -> Element<'a> {
    Box::new(move |position| {
        let (mut best, mut found, mut number) = (None, 0, 0);
        for_each(position, &node.contracted, &node.extents, |position| {
            let value = node.readers[0].get(position)?;
            let better = best.is_none_or(|best| match compare(value, best) {
                std::cmp::Ordering::Equal => last,
                order => order.is_gt() == (largest || is_nan(value) || is_nan(best)),
            });
            if better {
                (best, found) = (Some(value), number);
            }
            number += 1;
            Ok(())
        })?;
        Ok(Number::Integer(found))
    })
}

fn is_nan(value: Number) -> bool {
    matches!(value, Number::Float(value) if value.is_nan())
}

/// The order of two values; zeros are equal, NaNs are equal and above all numbers.
pub(super) fn compare(a: Number, b: Number) -> std::cmp::Ordering {
    match (a, b) {
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
        _ => a.to_i128().cmp(&b.to_i128()),
    }
}
