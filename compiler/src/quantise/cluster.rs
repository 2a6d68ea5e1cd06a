//! k-means in one dimension, exactly: on sorted numbers a cluster is a range, and the best ranges follow from those of one
//! cluster less (Wang and Song 2011). Where a last range begins never goes back as its end goes on, so each step takes `n log n`.

/// Boundaries between at most `count` clusters of finite numbers, ascending, each midway between two centres. Fewer where there are fewer
/// different numbers, or where numbers are too far apart to tell others apart: then no cluster is empty.
pub fn boundaries(values: &[f32], count: usize) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut different = sorted.clone();
    different.dedup();
    if different.len() <= count {
        return different.windows(2).map(|pair| midway(pair[0].into(), pair[1].into())).collect();
    }
    let numbers = Sorted::new(sorted);
    let centres: Vec<f64> = numbers.ranges(count).windows(2).map(|range| numbers.mean(range[0], range[1])).collect();
    let mut kept = Vec::new();
    let mut from = 0;
    for boundary in centres.windows(2).map(|pair| midway(pair[0], pair[1])) {
        let end = numbers.values.partition_point(|value| *value < boundary);
        if end > from && end < numbers.values.len() {
            kept.push(boundary);
            from = end;
        }
    }
    kept
}

fn midway(a: f64, b: f64) -> f32 {
    f64::midpoint(a, b) as f32
}

struct Sorted {
    values: Vec<f32>,
    /// Sums of the first numbers, and of their squares.
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Sorted {
    fn new(values: Vec<f32>) -> Self {
        let (mut sums, mut squares) = (vec![0.], vec![0.]);
        let (mut sum, mut square) = (0., 0.);
        for value in values.iter().map(|value| f64::from(*value)) {
            sum += value;
            square += value * value;
            sums.push(sum);
            squares.push(square);
        }
        Sorted { values, sums, squares }
    }

    fn mean(&self, from: usize, to: usize) -> f64 {
        (self.sums[to] - self.sums[from]) / (to - from).max(1) as f64
    }

    /// The sum of squared distances of a range's numbers from their mean.
    fn spread(&self, from: usize, to: usize) -> f64 {
        let sum = self.sums[to] - self.sums[from];
        (self.squares[to] - self.squares[from] - sum * sum / (to - from).max(1) as f64).max(0.)
    }

    /// Where the best ranges begin, and the end of all.
    fn ranges(&self, count: usize) -> Vec<usize> {
        let end = self.values.len();
        let mut best: Vec<f64> = (0..=end).map(|to| self.spread(0, to)).collect();
        let mut starts: Vec<Vec<usize>> = Vec::new();
        for number in 1..count {
            let mut next =
                Step { numbers: self, before: &best, best: vec![f64::INFINITY; end + 1], starts: vec![0; end + 1] };
            next.fill((number + 1, end), (number, end));
            starts.push(next.starts);
            best = next.best;
        }
        let mut ranges = vec![end];
        for starts in starts.iter().rev() {
            ranges.push(starts[ranges[ranges.len() - 1]]);
        }
        ranges.push(0);
        ranges.reverse();
        ranges
    }
}

/// The best ranges up to every end, with one cluster more than before.
struct Step<'a> {
    numbers: &'a Sorted,
    before: &'a [f64],
    best: Vec<f64>,
    /// Where the last range begins.
    starts: Vec<usize>,
}

impl Step<'_> {
    /// For the ends of a range, whose last ranges begin in another: the middle end first, which bounds both halves.
    fn fill(&mut self, ends: (usize, usize), starts: (usize, usize)) {
        if ends.0 > ends.1 {
            return;
        }
        let end = usize::midpoint(ends.0, ends.1);
        for start in starts.0..=starts.1.min(end - 1) {
            let spread = self.before[start] + self.numbers.spread(start, end);
            if spread < self.best[end] {
                (self.best[end], self.starts[end]) = (spread, start);
            }
        }
        let middle = self.starts[end].max(starts.0);
        self.fill((ends.0, end - 1), (starts.0, middle));
        self.fill((end + 1, ends.1), (middle, starts.1));
    }
}
