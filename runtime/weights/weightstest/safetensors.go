package weightstest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/moaserve/moaserve/runtime/weights"
)

var safetensorsNames = map[weights.Type]string{weights.F32: "F32", weights.F16: "F16", weights.BF16: "BF16"}

// WriteSafetensors writes tensors of the floating-point types as a safetensors
// file, in order.
func WriteSafetensors(w io.Writer, tensors []weights.Tensor) error {
	header := bytes.NewBufferString(`{"__metadata__":{"format":"pt"}`)
	offset := 0
	for _, t := range tensors {
		dtype, ok := safetensorsNames[t.Type]
		if !ok {
			return fmt.Errorf("tensor %q: safetensors have no %v", t.Name, t.Type)
		}
		name, err := json.Marshal(t.Name)
		if err != nil {
			return err
		}
		shape, err := json.Marshal(t.Shape)
		if err != nil {
			return err
		}
		fmt.Fprintf(header, `,%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`,
			name, dtype, shape, offset, offset+len(t.Data))
		offset += len(t.Data)
	}
	header.WriteByte('}')
	for header.Len()%8 != 0 { // the data begins aligned, as the format recommends
		header.WriteByte(' ')
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(header.Len()))
	file = append(file, header.Bytes()...)
	for _, t := range tensors {
		file = append(file, t.Data...)
	}
	_, err := w.Write(file)
	return err
}
