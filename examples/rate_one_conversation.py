"""Rate the last answer of one conversation.

    python examples/rate_one_conversation.py

``starter`` is the small model that comes with Assay. Any name that ``assay models`` lists can stand here, and
any folder with a reward model.
"""

from assay import query_reward_model

scores = query_reward_model(
    model="starter",
    messages=[
        {"role": "user", "content": "How many legs has a spider?"},
        {"role": "assistant", "content": "Eight. Insects have six."},
    ],
)

for attribute, score in scores.items():
    print(f"{attribute:12} {score:.2f}")
