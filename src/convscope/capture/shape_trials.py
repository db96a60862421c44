from dataclasses import dataclass
@dataclass
class ShapeFailure:
    def lines(self): return []
    def to_json(self): return {}
def shape_failure(model, inputs, error): return ShapeFailure()
