//! The search itself: repeated layers are searched once, and the result is the same every time.

use super::encoder::encoder;
use strang_compiler::rewrite::{Receipt, RewriteOptions, rewrite};
use strang_ir::{Module, text, verify::verify};

/// Heads and features of which a product costs less than almost anything else, so that most rules apply.
const SMALL: (usize, usize) = (2, 4);

fn rewritten(module: &Module) -> (Module, Receipt) {
    let (rewritten, receipt) = rewrite(module, &RewriteOptions::default()).unwrap();
    verify(&rewritten).unwrap_or_else(|error| panic!("{error}\n{}", text::print(&rewritten)));
    (rewritten, receipt)
}

#[test]
fn layers_are_searched_once() {
    let (_, few) = rewritten(&encoder(6, SMALL));
    let (module, many) = rewritten(&encoder(96, SMALL));
    assert!(many.windows >= 24, "{} windows", many.windows);
    assert_eq!((few.searched, many.searched), (1, 1), "of {} and {} windows", few.windows, many.windows);
    let gelus = many.applied.iter().filter(|application| application.rule == "gelu-in-pieces").count();
    assert_eq!(gelus, 96, "every layer is rewritten");
    assert!(text::print(&module).contains("gelu"));
}

#[test]
fn results_are_the_same_every_time() {
    let module = encoder(14, SMALL);
    let (first, receipt) = rewritten(&module);
    for _ in 0..3 {
        let (again, other) = rewritten(&module);
        assert_eq!(text::print(&first), text::print(&again));
        assert_eq!(receipt, other);
    }
}
