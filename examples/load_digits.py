"""Load the newest digits classifier back, in a process that knows nothing of its training.

python examples/load_digits.py
"""

import mlflow
from digits import digits

from mlwrap import load_model

(newest,) = mlflow.search_logged_models(
    experiment_ids=[mlflow.get_experiment_by_name("digits").experiment_id],
    filter_string="name = 'keras_model'",
    order_by=[{"field_name": "creation_time", "ascending": False}],
    max_results=1,
    output_format="list",
)
model = load_model(newest.model_uri)

_, images, _, labels = digits()
right = (model.predict(images, verbose=0).argmax(axis=1) == labels).mean()
print(f"loaded {newest.model_uri} back: {right:.1%} of {len(labels)} held-out digits right")
