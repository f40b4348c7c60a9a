"""The run as TensorBoard files, made anew from `metrics.jsonl` whenever they are begun: nothing is in them twice."""

import json
import shutil
from datetime import datetime

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from rl.core.rundir import RunDir
from rl.observe.readings import Record
from rl.track.content import AXIS, METRICS, scalars

FLUSH_S = 1
"""What a killed writer may leave unwritten."""


class TensorboardLog:
    """Raises:
    OSError: the run's directory cannot be written.
    """

    def __init__(self, run: RunDir) -> None:
        shutil.rmtree(run.tensorboard, ignore_errors=True)
        self._writer = EventFileWriter(str(run.tensorboard), flush_secs=FLUSH_S)
        self._described: set[str] = set()
        config = json.dumps(run.config().model_dump(mode="json"), indent=4)
        text = TensorProto(
            dtype=DT_STRING,
            string_val=["\n".join(f"    {line}" for line in config.splitlines()).encode()],  # Markdown's code block
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._writer.add_event(
            Event(summary=Summary(value=[Summary.Value(tag="config", tensor=text, metadata=plugin)]))
        )

    def write(self, number: int, record: Record) -> None:
        values = [
            Summary.Value(tag=tag, simple_value=value, metadata=self._described_once(tag))
            for tag, value in scalars(record).items()
        ]
        time = datetime.fromisoformat(record["time"]).timestamp()
        self._writer.add_event(Event(wall_time=time, step=record[AXIS], summary=Summary(value=values)))

    def close(self) -> None:
        self._writer.close()

    def _described_once(self, tag: str) -> SummaryMetadata | None:
        """What TensorBoard shows beside a chart; it reads the first event's."""
        if tag in self._described or (metric := METRICS.get(tag)) is None:
            return None
        self._described.add(tag)
        unit = f" ({metric.unit})" if metric.unit else ""
        return SummaryMetadata(display_name=f"{tag}{unit}", summary_description=metric.text)
