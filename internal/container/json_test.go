package container

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fill gives v random content of all kinds that its type can hold.
func fill(v reflect.Value, r *rand.Rand, depth int) {
	if r.IntN(4) == 0 && v.Kind() != reflect.Struct {
		return
	}
	switch v.Kind() {
	case reflect.String:
		parts := []string{"", "x", "web", "a b", "\"", "\\", "<&>", "\n\t\r\b\f\x01\x7f", "é€😀", "\u2028\u2029", "\xff\xc3", "{}[],:", "null", "/"}
		for range r.IntN(4) {
			v.SetString(v.String() + parts[r.IntN(len(parts))])
		}
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt([]int64{1, -1, 0, 42, 1 << 40, -1 << 63, 1<<63 - 1}[r.IntN(7)])
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() & (1<<v.Type().Bits() - 1))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r, depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 4))
		for i := range v.Len() {
			fill(v.Index(i), r, depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), r, depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(4) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(k, r, depth+1)
			fill(e, r, depth+1)
			if strings.ToValidUTF8(k.String(), "") == k.String() { // else two keys may become one
				v.SetMapIndex(k, e)
			}
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(r.Int64N(4e9), r.Int64N(2)*r.Int64N(1e9)).UTC()))
			return
		}
		for _, f := range v.Fields() {
			fill(f, r, depth+1)
		}
	default: // no type of ours has another
	}
}

type codec interface {
	AppendJSON(b []byte) []byte
	ParseJSON(data []byte) error
}

// TestJSONIsEncodingJSONs compares with encoding/json on random records.
func TestJSONIsEncodingJSONs(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		for _, fresh := range []func() codec{func() codec { return new(Record) }, func() codec { return new(State) }} {
			v := fresh()
			if seed > 0 {
				fill(reflect.ValueOf(v).Elem(), r, 0)
			}
			want, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if got := v.AppendJSON(nil); string(got) != string(want) {
				t.Fatalf("seed %d:\ngot  %s\nwant %s", seed, got, want)
			}
			a, b := fresh(), fresh()
			if err := json.Unmarshal(want, a); err != nil {
				t.Fatal(err)
			}
			if err := b.ParseJSON(want); err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, want)
			}
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d:\ngot  %+v\nwant %+v", seed, b, a)
			}
			// With spaces, and with members that a later version has added.
			loose := strings.ReplaceAll(string(want), `{"id"`, `{ "zzz" : [ {"a":[1.5e3,-2,null,true,"\ud83d\ude00"]} , false ] , "id"`)
			if err := b.ParseJSON([]byte(" " + loose + "\n")); err != nil || !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d: loose: %v", seed, err)
			}
			for _, n := range []int{0, 1, len(want) / 3, len(want) / 2, len(want) - 1} {
				if fresh().ParseJSON(want[:n]) == nil {
					t.Fatalf("seed %d: cut after %d bytes is taken for whole", seed, n)
				}
			}
		}
	}
}

func TestJSONRefuses(t *testing.T) {
	for _, s := range []string{
		"", " ", "[]", "7", `"x"`, "{}{}", "{} x", `{"id":}`, `{"id":7}`, `{"id":"x}`, `{"id":"\x"}`, `{"id":"\u12"}`, "{\"id\":\"\x01\"}", `{"id" "x"}`, `{"id":"x",}`, `{,}`, `{id:1}`,
		`{"config":{"tty":1}}`, `{"config":{"tty":tru}}`, `{"config":{"stopTimeout":1.5}}`, `{"config":{"stopTimeout":1e3}}`, `{"config":{"stopTimeout":01}}`, `{"config":{"stopTimeout":-}}`,
		`{"config":{"stopTimeout":99999999999999999999}}`, `{"config":{"resources":{"blkioWeight":70000}}}`, `{"config":{"cmd":"x"}}`, `{"config":{"cmd":["x",]}}`, `{"config":{"cmd":["x"}}`,
		`{"created":"yesterday"}`, `{"zzz":nul}`, `{"zzz":+}`, `{"zzz":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
	} {
		if err := new(Record).ParseJSON([]byte(s)); err == nil {
			t.Errorf("%s: taken", s)
		}
	}
	if err := new(Record).ParseJSON([]byte("null")); err != nil {
		t.Errorf("null: %v", err)
	}
}

// FuzzJSON: what is taken, encoding/json takes as well, and as the same.
func FuzzJSON(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		v := new(Record)
		fill(reflect.ValueOf(v).Elem(), r, 0)
		f.Add(v.AppendJSON(nil))
	}
	f.Add([]byte(`{"id":null,"zzz":{"a":[1,2]},"volumes":{"a":null},"config":{"consoleSize":[1,2,3],"oomScoreAdj":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, b Record
		if a.ParseJSON(data) != nil {
			return
		}
		if err := json.Unmarshal(data, &b); err != nil {
			t.Fatalf("taken, but: %v", err)
		}
		// Names in another case, and names given twice, are read in another way.
		if !reflect.DeepEqual(a, b) && string(a.AppendJSON(nil)) != string(b.AppendJSON(nil)) && !strings.Contains(string(data), "\\u") {
			seen := map[string]bool{}
			dec := json.NewDecoder(strings.NewReader(string(data)))
			for {
				tok, err := dec.Token()
				if err != nil {
					break
				}
				if s, ok := tok.(string); ok {
					if seen[strings.ToLower(s)] || s != strings.ToLower(s) {
						return
					}
					seen[strings.ToLower(s)] = true
				}
			}
			t.Errorf("%s\ngot  %+v\nwant %+v", data, a, b)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	v := new(Record)
	fill(reflect.ValueOf(v).Elem(), rand.New(rand.NewPCG(3, 3)), 0)
	data := v.AppendJSON(nil)
	b.Run("own", func(b *testing.B) {
		for b.Loop() {
			if err := new(Record).ParseJSON(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		for b.Loop() {
			if err := json.Unmarshal(data, new(Record)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
