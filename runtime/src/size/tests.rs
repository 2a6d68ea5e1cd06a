use super::*;
use proptest::prelude::*;

fn symbol(name: &str) -> Size {
    Size::symbol(name)
}

#[test]
fn polynomials_are_canonical() {
    let (h, w) = (symbol("h"), symbol("w"));
    assert_eq!((&h + &w) * (&h + &w), &h * &h + Size::from(2) * &h * &w + &w * &w);
    assert_eq!((&h - &h), Size::ZERO);
    assert_eq!((Size::from(4) * &h).floor_div(&4.into()), h);
    assert_eq!((&h * &w).floor_div(&w), h);
    assert_eq!((Size::from(4) * &h + Size::from(6)).floor_div(&4.into()), &h + Size::ONE);
    assert_eq!((Size::from(4) * &h + Size::from(6)).remainder(&4.into()), Size::from(2));
}

#[test]
fn text_is_readable() {
    let h = symbol("h");
    assert_eq!((Size::from(4) * &h - Size::ONE).to_string(), "4*h - 1");
    assert_eq!((&h + Size::ONE).floor_div(&2.into()).to_string(), "(h + 1)//2");
    assert!("".parse::<Size>().is_err());
    assert!("(".repeat(100_000).parse::<Size>().is_err());
    assert!("99999999999999999999".parse::<Size>().is_err());
}

#[test]
fn evaluation_reports_what_is_wrong() {
    let h = symbol("h");
    assert_eq!(h.eval(&Bindings::new()), Err(SizeError::Unbound("h".into())));
    let huge = Bindings::from([("h".into(), i64::MAX)]);
    assert!(matches!((&h * &h).eval(&huge), Err(SizeError::Overflow(_))));
    let zero = Bindings::from([("h".into(), 0)]);
    assert!(matches!(Size::ONE.floor_div(&h).eval(&zero), Err(SizeError::Divisor(..))));
}

#[test]
fn symbols_that_are_not_words_stand_in_quotes() {
    for symbol in ["we ird", "min", "3x", "", "a'", "\"\\\n\u{1}ß", "seq.len"] {
        let size = (Size::symbol(symbol) + Size::from(i64::MIN)).floor_div(&(Size::symbol(symbol) + Size::ONE));
        assert_eq!(size.to_string().parse::<Size>(), Ok(size));
    }
    assert_eq!(Size::symbol("we ird").to_string(), "\"we ird\"");
    for wrong in ["\"a", "\"\\q\"", "\"\\u{110000}\"", "\"\\u41\"", "a b", "'"] {
        assert!(wrong.parse::<Size>().is_err(), "{wrong}");
    }
}

#[test]
fn sizes_without_bound_are_refused() {
    for text in ["(a + c)*".repeat(100_000) + "1", "a*".repeat(100_000) + "1", "(a + 1)//3 + ".repeat(100_000) + "x*"] {
        assert!(text.parse::<Size>().is_err());
    }
}

fn sizes() -> impl Strategy<Value = Size> {
    let leaf = prop_oneof![(-9i64..10).prop_map(Size::from), "[abc]".prop_map(Size::symbol)];
    leaf.prop_recursive(4, 24, 2, |inner| {
        (inner.clone(), inner, 0..6, 1i64..6).prop_map(|(a, b, operation, divisor)| match operation {
            0 => a + b,
            1 => a - b,
            2 => a * b,
            3 => a.floor_div(&divisor.into()),
            4 => a.remainder(&divisor.into()),
            _ => a.smaller(&b).larger(&divisor.into()),
        })
    })
}

proptest! {
    #[test]
    fn text_round_trips(size in sizes()) {
        prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size.clone());
        prop_assert_eq!(serde_json::from_str::<Size>(&serde_json::to_string(&size).unwrap()).unwrap(), size);
    }

    #[test]
    fn operations_agree_with_integers(a in sizes(), b in sizes(), divisor in 1i64..7, x in 1i64..9, y in 1i64..9, z in 1i64..9) {
        let bindings = Bindings::from([("a".into(), x), ("b".into(), y), ("c".into(), z)]);
        if let (Ok(left), Ok(right)) = (a.eval(&bindings), b.eval(&bindings))
            && left.abs() < 1 << 30 && right.abs() < 1 << 30 {
            prop_assert_eq!((&a + &b).eval(&bindings), Ok(left + right));
            prop_assert_eq!((&a - &b).eval(&bindings), Ok(left - right));
            prop_assert_eq!((&a * &b).eval(&bindings), Ok(left * right));
            prop_assert_eq!(a.floor_div(&divisor.into()).eval(&bindings), Ok(left.div_euclid(divisor)));
            prop_assert_eq!(a.remainder(&divisor.into()).eval(&bindings), Ok(left.rem_euclid(divisor)));
            prop_assert_eq!(a.smaller(&b).eval(&bindings), Ok(left.min(right)));
            prop_assert_eq!(a.larger(&b).eval(&bindings), Ok(left.max(right)));
            prop_assert!(a.lower_bound(1).is_none_or(|bound| bound <= left));
            prop_assert!(a.upper_bound(1).is_none_or(|bound| bound >= left));
        }
    }
}
