"""A model with the training and test step of this package, for Keras' `fit`."""

import keras
import tensorflow as tf


class Trainee(keras.Model):
    """A classifier's graph with steps that are exact on every strategy.

    Shares layers and weights with the model it is made of; that one is saved, not this.

    Args:
        model: A functional classifier that returns logits.
        accumulation_steps: Parts of a replica's batch that are worked off one after the
            other before the one update; each needs memory for itself alone.
    """

    def __init__(self, model, accumulation_steps=1):
        super().__init__(model.input, model.output, name=model.name)
        self.accumulation_steps = accumulation_steps

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        # Without a strategy Keras makes the variables of metrics in the first step, which is
        # traced a second time for that.
        if not tf.distribute.has_strategy():
            rows = tf.zeros((1, *self.output_shape[1:]))
            self.compute_loss(None, rows, rows)
            self.compute_metrics(None, rows, rows, tf.ones(1))
            self.reset_metrics()

    def train_step(self, data):
        if self.accumulation_steps == 1:
            return super().train_step(data)
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        gradients, logits, loss = self._accumulate(self._parts(images), self._parts(labels))
        self._track_loss(loss, tf.shape(images)[0])
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self.compute_metrics(images, labels, tf.reshape(logits, tf.shape(labels)))

    def _parts(self, x):
        """`(B, ...)` as `(parts, B / parts, ...)`."""
        size = x.shape[0] or tf.shape(x)[0]
        return tf.reshape(
            x, (self.accumulation_steps, size // self.accumulation_steps, *x.shape[1:])
        )

    def _accumulate(self, images, labels):
        """Mean gradients and loss of all parts, and their logits, part by part."""
        parts, variables = self.accumulation_steps, self.trainable_variables

        def add_part(part, gradients, logits, total):
            with tf.GradientTape() as tape:
                y_pred = self(images[part], training=True)
                loss = self.compute_loss(images[part], labels[part], y_pred) / parts
                scaled = self.optimizer.scale_loss(loss)
            new = tape.gradient(scaled, [variable.value for variable in variables])
            gradients = [old + gradient for old, gradient in zip(gradients, new, strict=True)]
            return part + 1, gradients, logits.write(part, y_pred), total + loss

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        outputs = tf.TensorArray(tf.float32, parts, element_shape=(None, labels.shape[-1]))
        start = tf.constant(0), zeros, outputs, tf.constant(0.0)
        _, gradients, logits, loss = tf.while_loop(lambda part, *_: part < parts, add_part, start)
        return gradients, logits.stack(), loss

    def test_step(self, data):
        """The loss and accuracy of the rows of weight 1, whatever fills up the batch."""
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is None:
            weights = tf.ones(tf.shape(images)[:1])
        y_pred = self(images, training=False)
        total = tf.reduce_sum(weights)
        losses = tf.nn.softmax_cross_entropy_with_logits(labels, y_pred)
        mean = tf.math.divide_no_nan(tf.reduce_sum(losses * weights), total)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self._track_loss(mean / replicas, total)
        return self.compute_metrics(images, labels, y_pred, sample_weight=weights)

    def _track_loss(self, loss, rows):
        """Adds a loss that is scaled for the strategy, as Keras' losses are, to the mean."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss * replicas, sample_weight=rows)
