"""What runs is counted once for every time that it runs, and nothing else."""

import pytest

from big_distill import hlo

# As libtpu writes it, shortened: a fusion, a loop of three, a copy to the chip.
TEXT = '''HloModule jit_step, is_scheduled=true

%inside (p.0: f32[8,100]) -> f32[8,100] {
  %p.0 = f32[8,100]{1,0:T(8,128)} parameter(0)
  ROOT %add.9 = f32[8,100]{1,0:T(8,128)} add(%p.0, %p.0)
}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %add.8 = f32[]{:T(128)} add(%x, %y)
}

%body (t: (s32[], f32[8,100])) -> (s32[], f32[8,100]) {
  %t = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  %x.1 = f32[8,100]{1,0:T(8,128)} get-tuple-element(%t), index=1
  %psum.3 = f32[8,100]{1,0:T(8,128)} all-reduce(%x.1), channel_id=1, to_apply=%sum
  ROOT %out = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) tuple(%i, %psum.3)
}

%condition (t.1: (s32[], f32[8,100])) -> pred[] {
  %t.1 = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) parameter(0)
  ROOT %less = pred[]{:T(512)} constant(true)
}

ENTRY %main.5 (a: f32[8,100]) -> f32[8,100] {
  %a = f32[8,100]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %copy-start = (f32[8,100]{1,0:T(8,128)S(1)}, f32[8,100]{1,0:T(8,128)}, u32[]) copy-start(%a)
  %copy-done = f32[8,100]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %fused.2 = f32[8,100]{1,0:T(8,128)} fusion(%copy-done), kind=kLoop, calls=%inside
  %start = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) tuple(%zero, %fused.2)
  %loop = (s32[]{:T(128)}, f32[8,100]{1,0:T(8,128)}) while(%start), TAIL
  ROOT %last = f32[8,100]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
'''.replace('TAIL', 'condition=%condition, body=%body, backend_config='
           '{"known_trip_count":{"n":"3"}}')
PADDED = 8 * 128 * 4  # Bytes of one [8, 100], whose rows fill tiles of 128.


def test_moved_bytes_are_of_hbm_with_padding_and_loops():
  ran = hlo.instructions(TEXT)
  # The copy reads HBM, the fusion writes it; three times a sum does both.
  assert hlo.moved(ran) == PADDED + PADDED + 3 * 2 * PADDED
  moved = {each.op: each.moved * each.times for each in ran}
  assert {op: size for op, size in moved.items() if size} == {
      'all-reduce': 6 * PADDED, 'copy-start': PADDED, 'fusion': PADDED}


def test_messages_count_as_often_as_a_loop_sends_them():
  assert hlo.collectives(hlo.instructions(TEXT)) == {
      'all-reduce': (3, 3 * 8 * 100 * 4)}


@pytest.mark.parametrize('started', [
    'f32[32,100]{1,0} all-gather(%a)',
    '(f32[8,100]{1,0}, f32[32,100]{1,0}) all-gather-start(%a)'])
def test_what_is_gathered_counts_as_a_device_receives_it(started):
  text = TEXT.replace('%copy-start = ', f'%gathered = {started}\n  %copy-start = ')
  assert hlo.collectives(hlo.instructions(text))['all-gather'] == (
      1, 32 * 100 * 4)


@pytest.mark.parametrize('text, nbytes, padded, held', [
    ('f32[8,100]{1,0:T(8,128)}', 3200, 4096, True),
    ('f32[8,100]{0,1:T(8,128)}', 3200, 104 * 128 * 4, True),
    ('bf16[3,5]{1,0:T(8,128)(2,1)}', 30, 8 * 128 * 2, True),
    ('f32[2,7,7,64]{3,0,2,1:T(8,128)S(1)}', 25088, 7 * 7 * 8 * 128 * 4, False),
    ('f32[]{:T(128)}', 4, 4, True), ('s4[16]{0}', 8, 8, True)])
def test_an_array_fills_whole_tiles_of_its_last_axes(text, nbytes, padded, held):
  shape, = hlo.shapes(text)
  assert (shape.nbytes, shape.padded, shape.held) == (nbytes, padded, held)


BRANCHES = '''HloModule m

%small (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0} parameter(0)
  ROOT %c = f32[8,128]{1,0} bitcast(%p)
}

%large (q: f32[8,128]) -> f32[8,128] {
  %q = f32[8,128]{1,0} parameter(0)
  ROOT %n = f32[8,128]{1,0} negate(%q)
}

ENTRY %main (k: s32[], a: f32[8,128]) -> f32[8,128] {
  %k = s32[] parameter(0)
  %a = f32[8,128]{1,0} parameter(1)
  ROOT %r = f32[8,128]{1,0} conditional(%k, %a, %a), branch_computations={%small, %large}
}
'''


def test_of_branches_the_one_that_moves_most_counts():
  assert hlo.moved(hlo.instructions(BRANCHES)) == 2 * 8 * 128 * 4


def test_of_a_slice_only_what_it_takes_is_read():
  text = '''HloModule m

%corner (p: f32[64,128]) -> f32[8,128] {
  %p = f32[64,128]{1,0} parameter(0)
  %s = f32[8,128]{1,0} slice(%p), slice={[0:8], [0:128]}
  ROOT %n = f32[8,128]{1,0} negate(%s)
}

ENTRY %main (a: f32[64,128]) -> f32[8,128] {
  %a = f32[64,128]{1,0} parameter(0)
  %t = f32[8,128]{1,0} slice(%a), slice={[8:16], [0:128]}
  %ahead = (f32[64,128]{1,0}, f32[8,128]{1,0:S(1)}, s32[]) slice-start(%a)
  ROOT %f = f32[8,128]{1,0} fusion(%a), kind=kLoop, calls=%corner
}
'''
  # Read and written twice; the third is read alone, onto the chip.
  assert hlo.moved(hlo.instructions(text)) == 5 * 8 * 128 * 4


def test_a_loop_of_a_counted_condition_runs_so_often():
  counted = TEXT.replace(', backend_config={"known_trip_count":{"n":"3"}}', '')
  assert hlo.moved(hlo.instructions(counted)) == (2 + 2) * PADDED  # Once: unknown.
  counted = counted.replace(
      '  ROOT %less = pred[]{:T(512)} constant(true)',
      '  %n = s32[]{:T(128)} constant(7)\n'
      '  %j = s32[]{:T(128)} get-tuple-element(%t.1), index=0\n'
      '  ROOT %less = pred[]{:T(512)} compare(%j, %n), direction=LT')
  assert hlo.moved(hlo.instructions(counted)) == (2 + 7 * 2) * PADDED


def test_of_what_is_updated_in_place_only_the_update_is_moved():
  text = '''HloModule m

%put (p: f32[64,128], u: f32[8,128]) -> f32[64,128] {
  %p = f32[64,128]{1,0} parameter(0)
  %u = f32[8,128]{1,0} parameter(1)
  %i = s32[] constant(8)
  %z = s32[] constant(0)
  ROOT %d = f32[64,128]{1,0} dynamic-update-slice(%p, %u, %i, %z)
}

ENTRY %main (a: f32[64,128], b: f32[8,128]) -> f32[64,128] {
  %a = f32[64,128]{1,0} parameter(0)
  %b = f32[8,128]{1,0} parameter(1)
  ROOT %f = f32[64,128]{1,0} fusion(%a, %b), kind=kLoop, calls=%put
}
'''
  assert hlo.moved(hlo.instructions(text)) == 2 * 8 * 128 * 4
  alone = text.replace('fusion(%a, %b), kind=kLoop, calls=%put',
                       'dynamic-update-slice(%a, %b)')
  assert hlo.moved(hlo.instructions(alone)) == 2 * 8 * 128 * 4


def test_what_is_no_program_is_refused():
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.instructions('HloModule nothing')
