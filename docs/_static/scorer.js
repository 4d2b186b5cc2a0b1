// How the site's search ranks pages. Guides and notebooks come before the reference, and the API and the pages about the
// project come last. The words in docs/search.toml get 100 points from Sphinx, so their pages come first.
var Scorer = {
  score: ([page, title, anchor, description, score]) => {
    const weights = [
      [/^docs\/(how-to|tutorial)\//, 4],
      [/^notebooks\//, 3],
      [/^docs\/reference\/(api|benchmarks|deploy|faults|proof)$/, -4],
      [/^docs\/explanation\/(architecture|comparison)$/, -4],
      [/^(CHANGELOG|CONTRIBUTING|README|SECURITY)$/, -6],
    ];
    const weight = weights.find(([pattern]) => pattern.test(page));
    return score + (weight ? weight[1] : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 2,
  objPrio: {},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
