"""Train a classifier of handwritten digits; one decorator tells MLflow about it.

python examples/digits.py
"""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mlwrap import tracked_training


def digits():
    """1797 images of 8 x 8 pixels, a quarter of them held out."""
    images, labels = load_digits(return_X_y=True)
    return train_test_split(
        images.astype("float32") / 16, labels, test_size=0.25, random_state=0, stratify=labels
    )


@tracked_training(experiment="digits")
def train(
    *, units: int = 64, dropout: float = 0.2, learning_rate: float = 1e-3, epochs: int = 15, seed: int = 0
):
    keras.utils.set_random_seed(seed)
    images, held_out_images, labels, held_out_labels = digits()
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        images, labels, epochs=epochs, validation_data=(held_out_images, held_out_labels), verbose=0
    )
    return model, history


if __name__ == "__main__":
    train(units=128)
