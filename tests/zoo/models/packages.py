"""Models of packages beside Keras: KerasHub with random weights, and what KerasTuner has found."""

from __future__ import annotations

import keras
import keras_hub
import keras_tuner
import numpy as np
from keras import layers

from tests.zoo.entries import zoo

rng = np.random.default_rng(12)
X = rng.normal(size=(16, 4)).astype("float32")
Y = X.sum(axis=1)
WORDS = rng.integers(1, 30, size=(8, 6)).astype("int32")
TOKENS = {"token_ids": WORDS, "padding_mask": np.ones_like(WORDS), "segment_ids": np.zeros_like(WORDS)}
FEW = {name: part[:3] for name, part in TOKENS.items()}
IMAGES = rng.uniform(size=(4, 32, 32, 3)).astype("float32")


def bert():
    """As small as it can be."""
    return keras_hub.models.BertBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=6,
    )


@zoo("KerasHub guide: a BERT classifier, random weights, tokens in", FEW)
def hub_text_classifier():
    model = keras_hub.models.BertTextClassifier(backbone=bert(), num_classes=2, preprocessor=None)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(TOKENS, np.arange(8) % 2, verbose=0)
    return model


@zoo("KerasHub guide: a backbone in a functional model", FEW)
def hub_backbone_in_a_model():
    backbone = bert()
    pooled = backbone(backbone.input)["pooled_output"]
    model = keras.Model(backbone.input, layers.Dense(1)(pooled))
    model.compile("adam", "mse")
    model.fit(TOKENS, np.ones(8), verbose=0)
    return model


@zoo("KerasHub guide: a ResNet classifier, random weights", IMAGES[:2])
def hub_image_classifier():
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )
    model = keras_hub.models.ImageClassifier(backbone=backbone, num_classes=2, preprocessor=None)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, np.arange(4) % 2, verbose=0)
    return model


@zoo(
    "KerasTuner guide: a model of the best hyperparameters, and these",
    X[:3],
    of=lambda returned: returned[0],
)
def tuned():
    def build(hp):
        units = hp.Int("units", 2, 4)
        model = keras.Sequential([keras.Input((4,)), layers.Dense(units, "relu"), layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    class Search(keras_tuner.RandomSearch):
        """Its own way to a trial needs TensorBoard."""

        def run_trial(self, trial, *data, **options):
            return self.hypermodel.build(trial.hyperparameters).fit(*data, **options)

    tuner = Search(build, "val_loss", max_trials=2, directory="tuning", seed=1, overwrite=True)
    tuner.search(X, Y, validation_data=(X, Y), verbose=0)
    best = tuner.get_best_hyperparameters()[0]
    model = tuner.hypermodel.build(best)
    model.fit(X, Y, verbose=0)
    return model, best
