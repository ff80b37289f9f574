"""What each key of a config means, in a sentence, for docs/configs.md.

Types and defaults are those of signatures.py. A key is written SECTION.KEY, and
an option of one choice alone SECTION(CHOICE).KEY.
"""

SECTIONS = {
    '': 'Keys outside of sections.',
    'data': 'What images teach; docs/images.md has formats and layouts.',
    'data.parts.NAME': 'A part of a mixture, in place of data.name.',
    'crops': 'How regions are cut out.',
    'mode': "What models see: a name, such as 'funmatch', or these keys.",
    'mixup': 'How images are mixed, where the mode says so.',
    'student': 'The model that learns.',
    'teachers.NAME': 'A teacher: exactly one of init, labels, random and python.',
    'teachers.NAME.random': 'A model with random weights, to try a config.',
    'loss': 'How far the student is from its target.',
    'optim': 'The rule of the update.',
    'evals.NAME': 'What is measured. Results and rankings read the evaluations '
                  'called val, student, teacher and agree.',
    'checkpoints': 'Which states are kept.',
    'answers': "Teachers' answers, kept and replayed: docs/answers.md.",
    'students.NAME': 'Students that learn together, with sections of their own; '
                     'what these say is added to what the config says.',
}
EVERY = 'How often; in one of these units. Without it, before and at the end.'
DTYPE = "What the model computes in: 'float32' or 'bfloat16'."
MEAN = 'What the weights want of pixels in [0, 1]: (pixels - mean) / std.'
REMAT = 'Computes activations anew in the backward pass: less memory, more time.'
NORM = 'gn (GroupNorm) or bn (BatchNorm).'
CLASSES = "Number of classes; the teachers' or the dataset's unless it is given."
MOMENT = 'Decay of the mean of gradients.'
SECOND = 'Decay of the mean of squared gradients.'
EPS = 'Added to what is divided by.'
MU_DTYPE = 'What the mean of gradients is kept in, such as bfloat16.'
NESTEROV = 'Looks one step ahead, as Nesterov.'
WHO = 'Whose answers: student, or teacher for the consensus.'
LAYER = "Which features: a name among the models' intermediates."

MEANINGS = {
    'seed': 'Of all that is random: order, regions, mixup, initial weights.',
    'data': 'Section.', 'crops': 'Section.', 'mixup': 'Section.',
    'mode': 'A name in views.MODES, or a section.',
    'batch_size': 'Images of a step, on all devices together.',
    'total_steps': 'Length of the run, in one of these units.',
    'log_steps': 'How often metrics are logged; 100 times if it is not said.',
    'student': 'Section.', 'teachers': 'Section of sections.',
    'combine': 'How several teachers agree: mean of logits, or of probs.',
    'loss': 'Section.', 'optim': 'Section.', 'evals': 'Section of sections.',
    'checkpoints': 'Section.',
    'layout': "Of student.npz: big_vision, or others' names of weights.",
    'steps_per_call': 'Steps that devices take at once; with data.resident.',
    'accumulate': 'Parts in which a batch is computed, for less memory.',
    'answers': 'Section.', 'students': 'Section of sections.',
    'on_nonfinite': 'stop, or skip to leave out up to 10 such steps in a row.',
    'notes': 'Sentences that the run logs at its start.',
    'data.name': 'folder:PATH, or a dataset that TFDS has prepared.',
    'data.split': 'As TFDS writes it: train, train[:90%], train+test[:50].',
    'data.data_dir': 'Where TFDS has prepared the dataset.',
    'data.cache': 'What is kept in memory: encoded, decoded or none.',
    'data.corrupt': 'stop at an image that cannot be read, or skip it.',
    'data.image': 'Feature or column of images; None finds the only one.',
    'data.label': 'Feature or column of labels; None leaves labels out.',
    'data.classes': 'Order of classes of a path: None as texts, numeric, or a '
                    'list of their names.',
    'data.as_shown': 'Decodes as a viewer shows images; None does for paths.',
    'data.parts': 'Sections of a mixture, in place of a name.',
    'data.resident': 'Devices hold all images, and render them.',
    'data.parts.NAME.weight': 'How often, beside the other parts.',
    'crops.fraction': 'Share of a side that central, random and window keep.',
    'crops.reduced': 'Decodes large JPEGs at a smaller scale: faster, other '
                     'pixels.',
    'mode.student': 'The view of the student: crop[#draw].',
    'mode.teacher': 'The view of its teachers.',
    'mode.mixup': 'Whether images are mixed up.',
    'mode.votes': 'If not 0, answers are recorded means of so many draws.',
    'mixup.group': 'Neighbours among which partners are found.',
    'mixup.alpha': 'Of Beta(alpha, alpha), which draws the coefficient.',
    'student.size': 'Pixels a side of what it sees.',
    'student.family': 'A file of models/.',
    'student.init': 'A checkpoint that it starts from: a path or a name.',
    'student.head': "What becomes of the checkpoint's head: keep, drop, or "
                    'reshape, which drops it where classes differ.',
    'student.averages': "What training does to BatchNorm's: follow the batches, "
                        'or keep, and normalise by them, for small data.',
    'student.seed': "Of its initial weights, in place of the config's.",
    'student.num_classes': CLASSES, 'student.dtype': DTYPE,
    'student.mean': MEAN, 'student.std': 'See mean.', 'student.remat': REMAT,
    'student(bit).depth': '26, 50, 101, 152, 200, or units of each block.',
    'student(bit).width': 'Times the channels of a ResNet.',
    'student(mobilenet_v3).variant': 'large or small.',
    'student(mobilenet_v3).norm': NORM,
    'student(mobilenet_v3).width': 'Times the channels.',
    'student(efficientnet_lite).variant': 'lite0 to lite4.',
    'student(efficientnet_lite).norm': NORM,
    'student(vit).variant': 'A size and the side of a patch: Ti/16, S/16, B/32.',
    'student(vit).width': "Channels, in place of the variant's.",
    'student(vit).depth': "Blocks, in place of the variant's.",
    'student(vit).heads': "Heads, in place of the variant's.",
    'student(vit).mlp': "Hidden features, in place of the variant's.",
    'student(vit).pool': 'gap, tok or map: mean, a token, attention.',
    'student(vit).posemb': 'Positions: learn or sincos2d.',
    'student(vit).rep_size': 'Features of a layer before the head, 0 for none.',
    'teachers.NAME.init': 'A checkpoint: a path, gs://..., or a published name.',
    'teachers.NAME.labels': 'Labels are the teacher.',
    'teachers.NAME.size': 'Pixels a side of what it sees.',
    'teachers.NAME.dtype': DTYPE,
    'teachers.NAME.weights': 'What kernels are kept as: float32 or int8.',
    'teachers.NAME.random': 'Section: a model with random weights.',
    'teachers.NAME.python': 'FILE.py:make, a function of any framework.',
    'teachers.NAME.mean': 'What a python teacher wants of pixels in [0, 1].',
    'teachers.NAME.std': 'See mean.',
    'teachers.NAME.random.seed': 'Of its weights.',
    'loss.name': 'kl; xent, a cross-entropy; hard, with the best class.',
    'loss(kl).t': 'Temperature of both.',
    'loss(kl).t2': 'Times t squared, so that gradients keep their size.',
    'optim.name': 'A file of optimizers/.',
    'optim.lr': 'Learning rate.',
    'optim.wd': 'Decay of kernels a step, not times lr.',
    'optim.clip': "Largest norm of the gradient; None leaves it as it is.",
    'optim.schedule': 'cosine, constant, quadratic, steps, or others of optim.py.',
    'optim.warmup_steps': 'Steps of a rate that rises from 0, in one of these '
                          'units; at most a tenth of the run.',
    'optim.b1': MOMENT, 'optim.b2': SECOND, 'optim.eps': EPS,
    'optim.mu_dtype': MU_DTYPE, 'optim.nesterov': NESTEROV,
    'optim(sgd).momentum': MOMENT, 'optim(muon).beta': MOMENT,
    'optim(muon).rms': 'Root mean square of an update; None: as first published.',
    'optim(shampoo).block_size': 'Largest side of a block of a kernel.',
    'optim(shampoo).min_rank': 'Axes that a parameter needs to be preconditioned.',
    'optim(shampoo).exponent': 'Of the roots; None: twice the number of axes.',
    'optim(shampoo).root': 'How roots are computed, of ops/roots.py.',
    'optim(shampoo).root_every': 'Most steps from a root to its next.',
    'optim(shampoo).stats_every': 'Steps from one update of statistics to the '
                                  'next.',
    'optim(shampoo).start_step': 'Until then the graft alone steps.',
    'optim(shampoo).graft': 'Whose step sizes are taken over: adam, sgd, ...',
    'optim(shampoo).graft_b2': "As b2, of the graft.",
    'optim(shampoo).graft_eps': 'As eps, of the graft.',
    'optim(shampoo).graft_normalized': "The graft sees each tensor's gradient at "
                                       'norm 1.',
    'optim(shampoo).momentum': 'Of the gradient, or of the update.',
    'optim(shampoo).coupled_wd': 'Decay that enters the momentum; with wd=0.',
    'optim(soap).basis_every': 'Steps from one basis to its next.',
    'optim(soap).block_size': 'Largest side of a block of a kernel.',
    'evals.NAME.who': WHO, 'evals.NAME.layer': LAYER,
    'evals.NAME(calibration).bins': 'Bins of confidence.',
    'evals.NAME(fewshot).shots': 'Images of a class, each measured.',
    'evals.NAME(fewshot).l2': 'Of the ridge regression.',
    'evals.NAME(fewshot).seeds': 'Choices of images that are averaged.',
    'evals.NAME.type': 'A file of evaluators/.',
    'evals.NAME.view': 'What is seen: a crop without a draw.',
    'evals.NAME.data': "Section: on which images; the training data's options, "
                       'but for parts and label, unless it says others.',
    'evals.NAME.train': 'Section: the split that fewshot learns from.',
    'evals.NAME.every_steps': EVERY,
    'checkpoints.keep': 'How many of the newest stay.',
    'checkpoints.keep_every': 'Those at multiples of so many steps stay, too.',
    'checkpoints.every_steps': 'How often a state is saved, in one of these '
                               'units.',
    'answers.store': 'A folder in which answers are kept.',
    'answers.dtype': 'What logits are kept in.',
    'answers.top': 'How many logits are kept; None: all.',
    'answers.audit_percent': 'Of steps that read answers and ask again.',
    'answers.period_steps': 'After so long batches repeat, in one of these '
                            'units; 0: never.',
    'students.NAME': 'As outside.',
}


def of(section: str, key: str, choice: str = '') -> str | None:
  """The meaning of a key of a section such as teachers.NAME, or None."""
  own = f'{section}.' if section else ''
  names = [f'{section}({choice}).{key}', f'{own}{key}']
  if section.startswith('data.parts'):
    names.append(f'data.{key}')
  if section == 'teachers.NAME.random':
    names += [f'student({choice}).{key}', f'student.{key}']
  if section == 'students.NAME':
    names.append('students.NAME')
  return next((MEANINGS[name] for name in names if name in MEANINGS), None)
