//! Error budgets on a trained model: the digit classifier.

use npyz::WriterBuilder;
use std::path::{Path, PathBuf};
use strang::{
    Compiler, Tensor,
    budget::{Budget, BudgetError, Calibration},
    check::difference,
    npy,
};

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits")
}

/// Samples in a `.npz` file.
fn archive(path: &Path, arrays: &[(&str, &Tensor)]) {
    let mut archive = npyz::npz::NpzWriter::create(path).unwrap();
    for (name, tensor) in arrays {
        let shape: Vec<u64> = tensor.shape().iter().map(|size| *size as u64).collect();
        let options = archive.array(name, Default::default()).unwrap();
        let mut writer = options.default_dtype().shape(&shape).begin_nd().unwrap();
        writer.extend(tensor.as_slice::<f32>().unwrap().iter().copied()).unwrap();
        writer.finish().unwrap();
    }
}

#[test]
fn approximations_stay_within_the_budget() {
    let images = npy::read(&digits().join("inputs/input_0.npy"), None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.npz");
    archive(&path, &[("images", &images)]);
    let compiler = Compiler::new();
    let module = compiler.load(digits().join("digits.onnx")).unwrap();
    let calibration = Calibration::read(&path, &module).unwrap();
    assert_eq!(calibration.fitting[0][0].shape(), [270, 1, 8, 8]);
    assert_eq!(calibration.held_out[0][0].shape(), [90, 1, 8, 8]);
    let exact = compiler.compile(module.clone()).unwrap();
    assert_eq!(exact.receipt.budget, None, "nothing is approximate without a budget");
    let budgeted = compiler.budget(Budget { max_error: 0.1, calibration: calibration.clone() });
    let model = budgeted.compile(module).unwrap();
    let report = model.receipt.budget.unwrap();
    assert!(!report.variants.is_empty() && report.saving > 0., "{report}");
    assert!(model.flops != exact.flops, "{report}");
    for (samples, told) in [(&calibration.fitting, report.error), (&calibration.held_out, report.held_out)] {
        let [want, got] = [&exact.executable, &model.executable].map(|executable| executable.run(&samples[0]).unwrap());
        let error = difference(&got[0], &want[0]);
        assert_eq!(error, told);
        assert!(error > 0. && error <= report.allowed, "{report}");
    }
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.npz");
    let compiler = Compiler::new();
    let module = compiler.load(digits().join("digits.onnx")).unwrap();
    let read = |name: &str, shape: &[usize]| {
        archive(&path, &[(name, &Tensor::zeros(strang::ElementType::F32, shape).unwrap())]);
        Calibration::read(&path, &module)
    };
    assert!(matches!(read("pictures", &[8, 1, 8, 8]), Err(BudgetError::Missing { input, .. }) if input == "images"));
    assert!(matches!(read("images", &[8, 8]), Err(BudgetError::Shape { rank: 4, .. })));
    assert!(matches!(read("images", &[3, 1, 8, 8]), Err(BudgetError::Count { .. })));
    let samples = read("images", &[5, 2, 1, 8, 8]).unwrap();
    assert_eq!((samples.fitting.len(), samples.held_out.len()), (4, 1), "five samples of two images");
    let wrong = read("images", &[8, 1, 8, 9]).unwrap();
    let refused = compiler.clone().budget(Budget { max_error: 0.1, calibration: wrong }).compile(module.clone());
    assert!(refused.is_err_and(|error| error.to_string().contains("images")));
    for max_error in [-1., f64::NAN, 2.] {
        let refused =
            compiler.clone().budget(Budget { max_error, calibration: samples.clone() }).compile(module.clone());
        assert!(refused.is_err_and(|error| error.to_string().contains("0 to 1")));
    }
}
