"""Read, score and select without Prefect: the stages that a run puts together, called one by one.

    python examples/score_with_the_library.py

Scores are stored below ASSAY_HOME, as a run's are: what the command line has rated is not rated again here.
"""

from assay.config.settings import Settings
from assay.read.convert import CONVERT, ToConvert
from assay.read.inventory import INGEST, Inputs
from assay.rewards.find import find_model
from assay.score.scoring import SCORE, ToScore
from assay.select.decide import DECIDE, ToDecide
from assay.select.rules import parse_rules
from assay.storage.stage import RunContext
from assay.workers.cluster import ClusterOptions

context = RunContext(Settings.read().opened_home())
model = find_model("starter")
rules = parse_rules(["helpfulness >= 2"], attributes=model.columns)

inventory = INGEST.run(Inputs(("samples",)), context)
converted = CONVERT.run(ToConvert(inventory), context)
scored = SCORE.run(ToScore(converted, model, ClusterOptions(workers=1)), context)
decided = DECIDE.run(ToDecide(converted, scored, rules), context)

print(f"{decided.counts.read} records, {decided.counts.ok} kept, {scored.distinct_turns} turns rated")
for reason, count in decided.counts.dropped.items():
    print(f"  dropped: {reason}: {count}")
