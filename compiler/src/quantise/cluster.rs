//! k-means in one dimension: seeded by k-means++ (Arthur and Vassilvitskii 2007), then Lloyd's iterations on sorted numbers, where a cluster is
//! a range and its mean comes from prefix sums.

use strang_ir::generator::Random;

/// Lloyd's iterations, at most; on sorted numbers they end much sooner.
const ITERATIONS: usize = 100;
/// Starts, of which the best counts.
const STARTS: u64 = 4;

/// Boundaries between at most `count` clusters of finite numbers, ascending, each midway between two centres. Fewer where there are fewer
/// different numbers: then no cluster is empty.
pub fn boundaries(values: &[f32], count: usize, seed: u64) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut different = sorted.clone();
    different.dedup();
    if different.len() <= count {
        return different.windows(2).map(|pair| midway(pair[0].into(), pair[1].into())).collect();
    }
    let numbers = Sorted::new(sorted);
    let runs = (0..STARTS).map(|start| numbers.clusters(count, seed.wrapping_add(start)));
    let best = runs.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, centres)| centres).unwrap_or_default();
    let between: Vec<f32> = best.windows(2).map(|pair| midway(pair[0], pair[1])).collect();
    // Beside numbers that are very far away others fall together, and a cluster may be left empty.
    let mut kept = Vec::new();
    let mut from = 0;
    for boundary in between {
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
        let prefix = |of: fn(f64) -> f64| {
            let mut sum = 0.;
            let next = |value: &f32| {
                sum += of(f64::from(*value));
                sum
            };
            std::iter::once(0.).chain(values.iter().map(next).collect::<Vec<_>>()).collect::<Vec<f64>>()
        };
        let (sums, squares) = (prefix(|x| x), prefix(|x| x * x));
        Sorted { values, sums, squares }
    }

    /// Sums of squared distances and ascending centres.
    fn clusters(&self, count: usize, seed: u64) -> (f64, Vec<f64>) {
        let mut centres = self.seeded(count, seed);
        let mut ends = self.ends(&centres);
        for _ in 0..ITERATIONS {
            let mut from = 0;
            for (centre, end) in centres.iter_mut().zip(&ends) {
                if *end > from {
                    *centre = (self.sums[*end] - self.sums[from]) / (*end - from) as f64;
                }
                from = *end;
            }
            centres.sort_by(f64::total_cmp);
            let next = self.ends(&centres);
            if next == ends {
                break;
            }
            ends = next;
        }
        let mut from = 0;
        let mut distance = 0.;
        for (centre, end) in centres.iter().zip(&ends) {
            let (sum, squares) = (self.sums[*end] - self.sums[from], self.squares[*end] - self.squares[from]);
            distance += squares - 2. * centre * sum + centre * centre * (*end - from) as f64;
            from = *end;
        }
        (distance, centres)
    }

    /// Where the cluster of each centre ends.
    fn ends(&self, centres: &[f64]) -> Vec<usize> {
        let between = centres.windows(2).map(|pair| midway(pair[0], pair[1]));
        let ends = between.map(|boundary| self.values.partition_point(|value| *value < boundary));
        ends.chain([self.values.len()]).collect()
    }

    /// Centres far from one another: each next with a chance that grows with the square of its distance.
    fn seeded(&self, count: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let mut centres = vec![f64::from(self.values[random.below(self.values.len())])];
        while centres.len() < count {
            let distance = |value: &f32| {
                let far = centres.iter().map(|centre| (f64::from(*value) - centre).powi(2));
                far.fold(f64::INFINITY, f64::min)
            };
            let distances: Vec<f64> = self.values.iter().map(distance).collect();
            let mut left = random.unit() * distances.iter().sum::<f64>();
            let chosen = distances.iter().position(|distance| {
                left -= distance;
                left < 0. && *distance > 0.
            });
            let far = chosen.unwrap_or_else(|| {
                let most = |a: &usize, b: &usize| distances[*a].total_cmp(&distances[*b]);
                (0..distances.len()).max_by(most).unwrap_or_default()
            });
            centres.push(self.values[far].into());
        }
        centres.sort_by(f64::total_cmp);
        centres
    }
}
