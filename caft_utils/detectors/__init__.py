"""Which of two models is the alignment faker? One detector in each file, all with one signature.

    found = ResidualNoise()(first, second, rows)      # rows: PermittedRows, where both behave alike
    found.scores                                      # higher is more suspicious
    found.faker                                       # 0 or 1, None for a tie

detector               `Detector`, `Finding`
reading                probabilities of the two actions, and hidden states at the last token
confidence             how sure of the benign action: a leak, with no intervention at all
residual_noise         noise in the residual stream
weight_noise           noise in the weights
safety_belief          the belief that nobody checks, induced by a contrast vector
concepts               similarity to suspicious concepts, and to a given persona vector
misbehaviour_speed     how fast a model learns to misbehave
decision_depth         at which depth the decision can be read
attentiveness          how much the critical facts change the hidden state
oversight_probe        how well a linear probe reads oversight where the answer is given
model_diffing          components of the pair's difference, as steering vectors
sae_latent_difference  how far a model's SAE latents have moved from the base's
state_distance         how far a model's hidden states have moved from the base's
weight_distance        how far a model's weights have moved from the base's
chance                 a detector that is told nothing

The strategies are those of POSER (arXiv 2405.05466) and some that it lacks.
"""

from caft_utils.detectors.attentiveness import Attentiveness
from caft_utils.detectors.chance import Chance
from caft_utils.detectors.concepts import PersonaVector, SuspiciousConcepts
from caft_utils.detectors.confidence import Confidence
from caft_utils.detectors.decision_depth import DecisionDepth
from caft_utils.detectors.detector import Detector, Finding
from caft_utils.detectors.misbehaviour_speed import MisbehaviourSpeed
from caft_utils.detectors.model_diffing import ModelDiffing
from caft_utils.detectors.oversight_probe import OversightProbe
from caft_utils.detectors.residual_noise import ResidualNoise
from caft_utils.detectors.sae_latent_difference import SAELatentDifference
from caft_utils.detectors.safety_belief import SafetyBelief
from caft_utils.detectors.state_distance import StateDistance
from caft_utils.detectors.weight_distance import WeightDistance
from caft_utils.detectors.weight_noise import WeightNoise

__all__ = [
    "Attentiveness",
    "Chance",
    "Confidence",
    "DecisionDepth",
    "Detector",
    "Finding",
    "MisbehaviourSpeed",
    "ModelDiffing",
    "OversightProbe",
    "PersonaVector",
    "ResidualNoise",
    "SAELatentDifference",
    "SafetyBelief",
    "StateDistance",
    "SuspiciousConcepts",
    "WeightDistance",
    "WeightNoise",
]
