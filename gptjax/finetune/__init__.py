"""GPT-1's second stage (Radford et al. 2018, section 3.2 on): from a pretrained model to the paper's tasks.

    tasks.py       what there is to know of each task; yours is one more entry
    examples.py    TensorFlow Datasets and TSV files -> texts and labels, every row checked
    transforms.py  texts -> token sequences with start, delimiter and end
    data.py        a task, encoded;  batches.py  which examples of which width make up batch s
    model.py       the language model and the head;  trainable.py  what of it is trained: full, last, lora
    step.py        L3 and the pure step;  weights.py  where the weights begin, and come out
    run.py         one task with one seed;  job.py  all of them;  results.py  scores, tables, predictions
    studies.py     Table 5 and Figure 2 left;  zero_shot.py  Figure 2 right
"""
